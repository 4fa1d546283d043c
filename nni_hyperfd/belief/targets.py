"""Transformation of a task's performances before anything learns from them, so that no task's scale dominates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata


def relative_rank(performance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (rank - 0.5) / n of each of n performances, in (0, 1), the best highest; ties share their mean rank."""
    ranks: NDArray[np.float64] = rankdata(performance)
    return (ranks - 0.5) / len(performance)


def normal_scores(performance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard normal quantiles (n,) of the relative ranks (eq. B1); zeros for a constant performance."""
    scores: NDArray[np.float64] = ndtri(relative_rank(performance))
    return scores
