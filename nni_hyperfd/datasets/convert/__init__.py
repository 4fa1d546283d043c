"""Published face data sets, converted to the COCO layout that `nni_hyperfd.datasets.coco` reads.

A layout (`layouts`) yields the pictures as annotated (`record.Picture`), `cleaning` drops and clips what cannot be used
and lists it, `splitting` divides the rest, and `conversion` does all of it and writes the folder. Afterwards,
`weak_labels` can replace poor annotations by a detector's boxes.
"""
