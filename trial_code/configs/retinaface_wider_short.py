"""`retinaface_wider.py` for runs of a few epochs: the learning rate falls to zero as a half cosine.

`retinaface_mobilenet025_short.py` gives the reason.
"""

_base_ = "retinaface_wider.py"

param_scheduler = [{"type": "CosineAnnealingLR", "by_epoch": False}]
