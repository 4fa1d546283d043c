"""`retinaface_proxylessnas.py` for runs of a few epochs: the learning rate falls to zero as a half cosine.

The result of a short run that ends at its full rate depends much on chance. On facemask and FDDB (3 epochs, 128 pixels)
the AP of different configurations of hpo.json varies 1 to 2 times as much as that of different seeds without this
schedule, and 2 to 5 times as much with it.
"""

_base_ = "retinaface_proxylessnas.py"

param_scheduler = [{"type": "CosineAnnealingLR", "by_epoch": False}]
