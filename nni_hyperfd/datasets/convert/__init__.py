"""Face data sets as their authors publish them, converted to the COCO layout that `nni_hyperfd.datasets.coco` reads.

A layout (`layouts`) yields `record.Picture`s as annotated; `cleaning` drops and clips what cannot be used and keeps
count; `splitting` divides what is left; `conversion` runs the three and writes the folder.
"""
