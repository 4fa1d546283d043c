"""`retinaface_mobilenetv2.py` for runs of a few epochs: the learning rate falls to zero along half a cosine.

`retinaface_mobilenet025_short.py` says what that is good for.
"""

_base_ = "retinaface_mobilenetv2.py"

param_scheduler = [{"type": "CosineAnnealingLR", "by_epoch": False}]
