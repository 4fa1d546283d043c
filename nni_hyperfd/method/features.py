"""Image features as safetensors, which must hold finite numbers only: empty anchor groups are marked by a mask."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nni_hyperfd.method.weights import WeightsError


def pack_images(features: Tensor) -> dict[str, Tensor]:
    """Pack image features as finite tensors; `unpack_images` is the inverse.

    Args:
        features: float32 (n, 3, 3, D), image, stage, anchor group, feature; NaN throughout for a group without
            anchors. Other numbers that are not finite are kept, and `weights.dumps` refuses them.

    Returns:
        float32 tensors: "features" (n, 3, 3, D) and "present" (n, 3, 3), 1 for a group with anchors.
    """
    present = ~features.isnan().all(dim=-1)
    filled = torch.where(present.unsqueeze(-1), features, 0.0)
    return {"features": filled, "present": present.float()}


def unpack_images(tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the image features (n, 3, 3, D), with NaN for empty groups, that `pack_images` packed.

    Raises:
        WeightsError: a tensor is missing or has another shape.
    """
    features, present = _named(tensors, "features", "present")
    if features.ndim != 4 or features.shape[1:3] != (3, 3) or present.shape != features.shape[:3]:
        raise WeightsError(
            "Image features must have the shapes features (n, 3, 3, D) and present (n, 3, 3), "
            f"got {tuple(features.shape)} and {tuple(present.shape)}."
        )
    return torch.where(present.bool().unsqueeze(-1), features, torch.nan)


def pack(features: Tensor, counts: Tensor) -> dict[str, Tensor]:
    """Pack the image features of one data set and its size; `unpack` is the inverse.

    Args:
        features: float32 (n, 3, 3, D), as for `pack_images`.
        counts: (2,), numbers of images and of boxes of the whole training split.

    Returns:
        float32 tensors: those of `pack_images` and "counts" (2,).
    """
    return {**pack_images(features), "counts": counts.float()}


def unpack(tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the image features (n, 3, 3, D), with NaN for empty groups, and the counts (2,) that `pack` packed.

    Raises:
        WeightsError: a tensor is missing or has another shape.
    """
    features, (counts,) = unpack_images(tensors), _named(tensors, "counts")
    if counts.shape != (2,):
        raise WeightsError(f"The counts of image features must have shape (2,), got {tuple(counts.shape)}.")
    return features, counts


def _named(tensors: Mapping[str, Tensor], *names: str) -> list[Tensor]:
    if missing := [name for name in names if name not in tensors]:
        raise WeightsError(f"Image features lack {', '.join(missing)}.")
    return [tensors[name] for name in names]
