"""Many data sets that differ, made from a few: how the HyperFD paper augments the server's data (appendix B.4).

`pool` joins the sources; `looks`, `labels` and `networks` describe every image in numbers; `clusterings` groups the
images by each description; `filters` selects the groups that can be data sets of their own; `report` says how they
differ; `flow` does all of it and writes the folder.
"""
