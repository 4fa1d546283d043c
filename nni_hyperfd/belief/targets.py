"""What a task's performances become before anyone learns from them, so that no task's scale dominates."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata


def relative_rank(performance: np.ndarray) -> np.ndarray:
    """(n,) in (0, 1): (rank - 0.5) / n, the best highest; ties share their mean rank."""
    return (rankdata(performance) - 0.5) / len(performance)


def normal_scores(performance: np.ndarray) -> np.ndarray:
    """(n,): where the standard normal distribution has the relative ranks; zeros for a constant performance."""
    return ndtri(relative_rank(performance))
