"""The transformation of old meta-features into the space of the newest extractor (eq. 4, docs/method.md)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def fit_transform(source: Tensor, target: Tensor, ridge: float = 1e-2) -> Tensor:
    """Fit the linear map W that takes `source` to `target`: argmin |source W^T - target|^2 + ridge |W - I|^2.

    Args:
        source: float (m, k), meta-features of m offline data sets, made by an old extractor.
        target: float (m, k), meta-features of the same data sets, made by the newest extractor.
        ridge: weight of the regularisation, >= 0. W is the identity in directions that the m data sets do not cover,
            so m = 0 gives the identity.

    Returns:
        float32 (k, k), to be applied as `meta_features @ W.T`.

    Raises:
        ValueError: the shapes do not match, a number is not finite, or the ridge is negative.
    """
    if source.ndim != 2 or source.shape != target.shape:
        raise ValueError(
            "A transformation is fitted to two equally shaped tables of meta-features, "
            f"got {tuple(source.shape)} and {tuple(target.shape)}."
        )
    if not (source.isfinite().all() and target.isfinite().all()):
        raise ValueError("A transformation cannot be fitted to meta-features that are not finite.")
    if ridge < 0:
        raise ValueError(f"The ridge of a transformation must be 0 or greater, not {ridge}.")
    source, target = source.double(), target.double()
    identity = torch.eye(source.shape[1], dtype=torch.float64)
    # Least squares for W - I with the ridge as extra rows: exact without forming the squared matrix, and gelsd's
    # minimum-norm solution keeps the identity in directions without data even without a ridge.
    rows = torch.cat([source, math.sqrt(ridge) * identity])
    residual = torch.cat([target - source, torch.zeros_like(identity)])
    change: Tensor = torch.linalg.lstsq(rows, residual, driver="gelsd").solution
    return (identity + change.T).float()
