"""Image features on their way through safetensors, which must hold finite numbers only."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nni_hyperfd.method.weights import WeightsError

_NAMES = ("features", "present", "counts")


def pack(features: Tensor, counts: Tensor) -> dict[str, Tensor]:
    """Named float32 tensors that hold the image features of one data set; `unpack` is the inverse.

    features: (n, 3, 3, D), NaN throughout for an anchor group without anchors. counts: (2,), images and boxes.
    Other numbers that are not finite stay in, and `weights.dumps` refuses them.
    """
    present = ~features.isnan().all(dim=-1)
    filled = torch.where(present.unsqueeze(-1), features, 0.0)
    return {"features": filled, "present": present.float(), "counts": counts.float()}


def unpack(tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Image features (n, 3, 3, D) with their NaN groups, and counts (2,). Raises WeightsError for anything else."""
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
