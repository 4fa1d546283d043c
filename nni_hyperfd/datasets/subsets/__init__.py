"""The paper's augmentation of the server's data (appendix B.4): many subsets of a few data sets that really differ.

`pool` joins the sources; `looks`, `labels` and `models` describe every image in numbers; `clusterings` groups them by
each description; `filters` keeps the groups that can be data sets of their own; `report` says how they differ;
`flow` runs it all and writes the folder.
"""
