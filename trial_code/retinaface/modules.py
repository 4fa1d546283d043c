"""Importing it registers everything of this package, and of mmdet, under mmdet's names.

The configs name it in `custom_imports`, so that mmdet's own tools take them too.
"""

import numpy as np
import torch
from mmdet.utils import register_all_modules
from mmengine.logging.history_buffer import HistoryBuffer

from retinaface import (
    augment,
    backbones,
    bifpn,
    dataset,
    detector,
    head,
    hooks,
    loops,
    losses,
    metric,
    neck,
    sampling,
    transforms,
    wider,
)

__all__ = [
    "augment",
    "backbones",
    "bifpn",
    "dataset",
    "detector",
    "head",
    "hooks",
    "loops",
    "losses",
    "metric",
    "neck",
    "sampling",
    "transforms",
    "wider",
]

# mmengine 0.10.7 writes its message hub into checkpoints and reads them with a bare torch.load, which refuses these
# types since torch 2.6; without them no run could be resumed.
torch.serialization.add_safe_globals(
    [
        HistoryBuffer,
        getattr,
        np.ndarray,
        np.dtype,
        np.dtypes.Float64DType,
        np.dtypes.Int64DType,
        np.empty(0).__reduce__()[0],
        np.float64(0).__reduce__()[0],
    ]
)

register_all_modules(init_default_scope=True)
