"""Distances between tasks by their meta-features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_UNKNOWN = 2.0
"""Expected squared distance per entry of two tasks drawn at random, each entry having variance 1."""


@dataclass(frozen=True, eq=False)
class MetaFeatures:
    """Tasks' meta-features, each entry scaled to variance 1 over the tasks (eq. B2).

    Attributes:
        rows: (n, m), NaN where an entry is unknown.
        middle: (m,), means before scaling.
        scale: (m,), standard deviations before scaling, > 0.
    """

    rows: NDArray[np.float64]
    middle: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def of(cls, meta_features: Sequence[NDArray[np.floating] | None]) -> MetaFeatures:
        """Scale meta-features.

        Args:
            meta_features: (m,) for each of n tasks, or None for a task without one. An entry that is not finite is
                unknown, and all entries are where the length differs from that of the last task that has a
                meta-feature.
        """
        width = next((len(row) for row in reversed(meta_features) if row is not None), 0)
        rows = np.array([_known(row, width) for row in meta_features]).reshape(len(meta_features), width)
        known = np.isfinite(rows)
        numbers = np.maximum(known.sum(axis=0), 1)
        middle = np.where(known, rows, 0.0).sum(axis=0) / numbers
        scale = np.sqrt(np.where(known, np.square(rows - middle), 0.0).sum(axis=0) / numbers)
        scale = np.where(scale > 0, scale, 1.0)
        return cls((rows - middle) / scale, middle, scale)

    @cached_property
    def between(self) -> NDArray[np.float64]:
        """Root mean squared distances (n, n) of the tasks, symmetric, 0 on the diagonal.

        An entry that is unknown on either side counts as the distance of two tasks drawn at random, sqrt(2).
        """
        apart = _apart(self.rows[:, None], self.rows[None])
        np.fill_diagonal(apart, 0.0)
        return apart

    def to(self, meta_feature: NDArray[np.floating] | None) -> NDArray[np.float64]:
        """Root mean squared distances (n,) of another task to these."""
        return _apart(self.rows, (_known(meta_feature, len(self.middle)) - self.middle) / self.scale)


def distances(meta_features: Sequence[NDArray[np.floating] | None]) -> NDArray[np.float64]:
    """Distances (n, n) between tasks whose meta-features are all known beforehand; see `MetaFeatures`."""
    return MetaFeatures.of(meta_features).between


def _known(row: NDArray[np.floating] | None, width: int) -> NDArray[np.float64]:
    """A meta-feature (width,) with NaN where it is unknown."""
    if row is None or len(row) != width:
        return np.full(width, np.nan)
    return np.where(np.isfinite(row), row, np.nan).astype(np.float64)


def _apart(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root mean squared distances over the last axis."""
    squared = np.square(one - other)
    if not squared.shape[-1]:
        return np.full(squared.shape[:-1], math.sqrt(_UNKNOWN))
    apart: NDArray[np.float64] = np.sqrt(np.where(np.isnan(squared), _UNKNOWN, squared).mean(axis=-1))
    return apart
