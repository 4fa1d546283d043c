"""Distances between tasks by their meta-features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_UNKNOWN = 2.0
"""Expected squared distance per entry of two tasks drawn at random, each entry having variance 1."""


def distances(meta_features: Sequence[NDArray[np.floating] | None]) -> NDArray[np.float64]:
    """Compute the root mean squared distance of every two tasks (eq. B2), entries scaled to variance 1 over the tasks.

    Args:
        meta_features: (m,) for each of n >= 1 tasks, or None for a task without one. An entry that is not finite is
            unknown, and all entries are where the length differs from that of the last task that has a meta-feature.

    Returns:
        (n, n), symmetric, 0 on the diagonal. An entry that is unknown on either side counts as the distance of two
        tasks drawn at random, sqrt(2).
    """
    count = len(meta_features)
    width = next((len(row) for row in reversed(meta_features) if row is not None), 0)
    if not width:
        return math.sqrt(_UNKNOWN) * (1 - np.eye(count))
    rows = np.array([r if r is not None and len(r) == width else np.full(width, np.nan) for r in meta_features], float)
    known = np.isfinite(rows)
    numbers = np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, rows - np.where(known, rows, 0.0).sum(axis=0) / numbers, 0.0)
    scale = np.sqrt((centred**2).sum(axis=0) / numbers)
    centred /= np.where(scale > 0, scale, 1.0)
    both = known[:, None] & known[None]
    squared = np.where(both, (centred[:, None] - centred[None]) ** 2, _UNKNOWN).mean(axis=-1)
    np.fill_diagonal(squared, 0.0)
    apart: NDArray[np.float64] = np.sqrt(squared)
    return apart
