"""Image features as safetensors, which must hold finite numbers only: empty anchor groups are marked by a mask."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nni_hyperfd.method.weights import WeightsError

_NAMES = ("features", "present", "counts")


def pack(features: Tensor, counts: Tensor) -> dict[str, Tensor]:
    """Pack the image features of one data set as finite tensors; `unpack` is the inverse.

    Args:
        features: float32 (n, 3, 3, D), image, stage, anchor group, feature; NaN throughout for a group without
            anchors. Other numbers that are not finite are kept, and `weights.dumps` refuses them.
        counts: (2,), numbers of images and of boxes of the whole training split.

    Returns:
        float32 tensors: "features" (n, 3, 3, D), "present" (n, 3, 3), 1 for a group with anchors, and "counts" (2,).
    """
    present = ~features.isnan().all(dim=-1)
    filled = torch.where(present.unsqueeze(-1), features, 0.0)
    return {"features": filled, "present": present.float(), "counts": counts.float()}


def unpack(tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the image features (n, 3, 3, D), with NaN for empty groups, and the counts (2,) that `pack` packed.

    Raises:
        WeightsError: a tensor is missing or has another shape.
    """
    if missing := [name for name in _NAMES if name not in tensors]:
        raise WeightsError(f"Image features lack {', '.join(missing)}.")
    features, present, counts = (tensors[name] for name in _NAMES)
    if (
        features.ndim != 4
        or features.shape[1:3] != (3, 3)
        or present.shape != features.shape[:3]
        or counts.shape != (2,)
    ):
        raise WeightsError(
            "Image features must have the shapes features (n, 3, 3, D), present (n, 3, 3) and counts (2,), "
            f"got {tuple(features.shape)}, {tuple(present.shape)} and {tuple(counts.shape)}."
        )
    return torch.where(present.bool().unsqueeze(-1), features, torch.nan), counts
