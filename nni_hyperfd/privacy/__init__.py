"""What the data owner's side lets out about a data set, and the account of it (docs/privacy.md).

`mechanism` computes what is released, `accounting` what that costs, `projection` has the public numbers that both need,
`ledger` keeps what a data set has spent, `settings` is what the owner has decided, and `release` is the door through
which a description leaves. Nothing in here knows NNI, SQL or the platform.
"""
