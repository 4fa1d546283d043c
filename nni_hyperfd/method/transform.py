"""Carrying old meta-features into the space of the newest extractor, equation 4 of papers/README.md."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def fit_transform(source: Tensor, target: Tensor, ridge: float = 1e-2) -> Tensor:
    """The linear map W that takes `source` to `target`: argmin |source W^T - target|^2 + ridge |W - I|^2.

    source, target: (m, k), meta-features of the same m offline data sets by an old and by the newest extractor.
    ridge: >= 0; where the m data sets say nothing about a direction, W is the identity there, so m = 0 gives the
    identity. Returns float32 (k, k), to be used as `source @ W.T`. Raises ValueError for shapes that do not match and
    for numbers that are not finite.
    """
    _check(source, target)
    if ridge < 0:
        raise ValueError(f"The ridge of a transformation must be 0 or greater, not {ridge}.")
    source, target = source.double(), target.double()
    identity = torch.eye(source.shape[1], dtype=torch.float64)
    # Least squares for W - I with the ridge as extra rows: exact without forming the squared matrix, and gelsd's
    # smallest solution keeps the identity in unseen directions even without a ridge.
    rows = torch.cat([source, math.sqrt(ridge) * identity])
    residual = torch.cat([target - source, torch.zeros_like(identity)])
    change = torch.linalg.lstsq(rows, residual, driver="gelsd").solution
    return (identity + change.T).float()


def train_transform(
    source: Tensor, target: Tensor, steps: int, learning_rate: float = 1e-2, start: Tensor | None = None
) -> Tensor:
    """The same map by gradient steps, as in the paper, which takes 20 of them for every batch of the encoder.

    source, target: as for `fit_transform`; no data set at all leaves `start` as it is. steps: >= 0, of Adam on the mean
    over the data sets of |source W^T - target|^2. start: (k, k), by default the identity; with what an earlier call
    returned the training goes on from there (Adam's state does not). Returns float32 (k, k). Raises ValueError as
    `fit_transform` does.
    """
    _check(source, target)
    matrix = torch.eye(source.shape[1]) if start is None else start.detach().clone()
    matrix.requires_grad_()
    optimizer = torch.optim.Adam([matrix], lr=learning_rate)
    for _ in range(steps if len(source) else 0):
        optimizer.zero_grad()
        (source @ matrix.T - target).square().sum(dim=1).mean().backward()
        optimizer.step()
    return matrix.detach()


def _check(source: Tensor, target: Tensor) -> None:
    if source.ndim != 2 or source.shape != target.shape:
        raise ValueError(
            "A transformation is fitted to two equally shaped tables of meta-features, "
            f"got {tuple(source.shape)} and {tuple(target.shape)}."
        )
    if not (source.isfinite().all() and target.isfinite().all()):
        raise ValueError("A transformation cannot be fitted to meta-features that are not finite.")
