"""Makes mmdet run on an mmcv without compiled ops: `mmcv-lite`, or `onedl-mmcv` as pip builds it by default.

`mmdet.structures` imports `mmcv.ops`, which looks up every function of the extension module `mmcv._ext` on import. This
detector calls only one of them, `nms`. If the extension is missing, a module with that name is registered instead: its
`nms` is written in torch, and all other functions raise an error when called. No file of mmcv is changed, and nothing
is registered if mmcv has its compiled ops.
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
    """Greedy non-maximum suppression, as in mmcv's compiled op. Memory is O(n^2).

    Args:
        boxes: (n, 4) as x1, y1, x2, y2.
        scores: (n,).
        iou_threshold: a box is suppressed if its IoU with a box of a higher score is greater.
        offset: added to every width and height, 0 or 1.

    Returns:
        Indices of the boxes that are kept, int64, by falling score; of equal scores the first one comes first.
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
    kept = np.ones(len(suppresses), bool)  # NumPy, since many short steps take ten times as long with tensors
    for i, later in enumerate(suppresses):
        if kept[i]:
            kept[i + 1 :] &= ~later[i + 1 :]
    return order[torch.from_numpy(kept).to(order.device)]


class _Extension(ModuleType):
    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_args: object, **_kwargs: object) -> NoReturn:
            raise NotImplementedError(f"the op {name!r} needs an mmcv with compiled ops")

        return missing


def is_compiled() -> bool:
    """Whether the installed mmcv has its compiled ops; mmcv is not imported."""
    mmcv = importlib.util.find_spec("mmcv")
    return mmcv is not None and PathFinder.find_spec(EXTENSION, mmcv.submodule_search_locations) is not None


def install() -> None:
    """Register the replacement of `mmcv._ext`, unless mmcv has its compiled ops or it is registered already."""
    if EXTENSION in sys.modules or is_compiled():
        return
    extension = _Extension(EXTENSION)
    extension.__spec__ = ModuleSpec(EXTENSION, None)  # no loader, by which mmengine sees that there are no ops
    extension.nms = nms  # type: ignore[attr-defined]  # this is what makes it the replacement
    sys.modules[EXTENSION] = extension
