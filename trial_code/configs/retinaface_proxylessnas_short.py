"""`retinaface_proxylessnas.py` for runs of a few epochs.

The learning rate falls to zero as a half cosine (`retinaface_mobilenet025_short.py` gives the reason), from ten times
the paper's: at 1e-3 a few epochs do not bring back what a backbone has lost by inheriting, and about half of all trials
end below the start (`nni_hyperfd/benchmark/measured_nas`).
"""

_base_ = "retinaface_proxylessnas.py"

optim_wrapper = {"optimizer": {"lr": 1e-2}}
param_scheduler = [{"type": "CosineAnnealingLR", "by_epoch": False}]
