"""`hyperfd reproduce`: the paper's tables and figures from lookup tables, beside the paper's own numbers.

`arms` says who is compared, `runs` does it and keeps what came out, `paper` holds what the paper has printed,
`exhibits` makes tables of both and `figures` draws; `page` puts all on one HTML page.
"""
