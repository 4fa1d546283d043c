"""How far apart tasks are by their meta-features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_UNKNOWN = 2.0
"""The squared distance of two tasks drawn at random, per entry."""


def distances(meta_features: Sequence[np.ndarray | None]) -> np.ndarray:
    """(n, n): root mean squared distance of n >= 1 tasks, each entry in units of its standard deviation over them.

    An entry that is not finite on either side counts as the distance of two tasks drawn at random, 1.4; so does every
    entry of a task without meta-feature, or whose meta-feature has another length than that of the last task that has
    one. A task is at distance 0 from itself.
    """
    count = len(meta_features)
    width = next((len(row) for row in reversed(meta_features) if row is not None), 0)
    if not width:
        return np.sqrt(_UNKNOWN) * (1 - np.eye(count))
    rows = np.array([r if r is not None and len(r) == width else np.full(width, np.nan) for r in meta_features], float)
    known = np.isfinite(rows)
    numbers = np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, rows - np.where(known, rows, 0.0).sum(axis=0) / numbers, 0.0)
    scale = np.sqrt((centred**2).sum(axis=0) / numbers)
    centred /= np.where(scale > 0, scale, 1.0)
    both = known[:, None] & known[None]
    squared = np.where(both, (centred[:, None] - centred[None]) ** 2, _UNKNOWN).mean(axis=-1)
    np.fill_diagonal(squared, 0.0)
    return np.sqrt(squared)
