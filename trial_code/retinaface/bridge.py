"""Lets mmdet run on `mmcv-lite`, the build of mmcv without compiled ops.

`mmdet.structures` imports `mmcv.ops`, which looks up every function of the extension `mmcv._ext` at import time. This
detector calls exactly one of them, `nms`. So where the extension is absent a module of its name is put in its place:
`nms` in torch, everything else an error when it is called. No file of mmcv is changed, and where mmcv was compiled
the bridge steps aside.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from torch import Tensor

EXTENSION = "mmcv._ext"


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Greedy non-maximum suppression, with the contract of mmcv's compiled op.

    boxes (n, 4) as x1, y1, x2, y2; scores (n,); offset is added to every width and height. Returns the indices of the
    boxes that are kept, by falling score; of equal scores the earlier goes first. Memory is O(n^2).
    """
    import numpy as np
    import torch

    order = scores.argsort(descending=True, stable=True)
    x1, y1, x2, y2 = boxes[order].T.contiguous()
    area = (x2 - x1 + offset) * (y2 - y1 + offset)
    width = (torch.minimum(x2[:, None], x2) - torch.maximum(x1[:, None], x1) + offset).clamp_(min=0)
    height = (torch.minimum(y2[:, None], y2) - torch.maximum(y1[:, None], y1) + offset).clamp_(min=0)
    shared = width * height
    suppresses = (shared > iou_threshold * (area[:, None] + area - shared)).cpu().numpy()
    kept = np.ones(len(suppresses), bool)  # the loop is numpy's: short steps on tensors take ten times as long
    for i, later in enumerate(suppresses):
        if kept[i]:
            kept[i + 1 :] &= ~later[i + 1 :]
    return order[torch.from_numpy(kept).to(order.device)]


class _Extension(ModuleType):
    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_args: object, **_kwargs: object) -> NoReturn:
            raise NotImplementedError(f"the op {name!r} needs the compiled mmcv==2.1.0 in place of mmcv-lite")

        return missing


def is_compiled() -> bool:
    """Whether the installed mmcv has its compiled ops (found without importing mmcv)."""
    mmcv = importlib.util.find_spec("mmcv")
    return mmcv is not None and PathFinder.find_spec(EXTENSION, mmcv.submodule_search_locations) is not None


def install() -> None:
    """Put the stand-in for `mmcv._ext` in place, unless mmcv was compiled or it is there already."""
    if EXTENSION in sys.modules or is_compiled():
        return
    extension = _Extension(EXTENSION)
    extension.__spec__ = ModuleSpec(EXTENSION, None)  # mmengine takes a loader of None for "no compiled mmcv"
    extension.nms = nms
    sys.modules[EXTENSION] = extension
