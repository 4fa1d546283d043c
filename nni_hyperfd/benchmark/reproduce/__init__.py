"""`hyperfd reproduce`: the paper's tables and figures from lookup tables, beside the paper's own numbers.

`arms` says what is compared, `plan` which runs that takes, `warm_ups` and `runs` do them and keep the results, `paper`
holds what the paper prints, `exhibits` makes tables of both and `figures` draws; `page` puts all on one HTML page.
"""
