"""The scale of a task's results: how much its performance changes per unit of the targets (eq. B12, docs/method.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

_GRID = 9
_OUTLYING = 2.0
"""Maximum distance from the median at which a log scale counts in full: a past task in other units, percent for
instance, must not make every scale plausible."""


@dataclass(frozen=True)
class ScalePrior:
    """Prior of a task's scale; its logarithm is Gaussian (eq. B12).

    Attributes:
        middle: mean of the logarithm.
        deviation: standard deviation of the logarithm, > 0.
    """

    middle: float
    deviation: float

    @classmethod
    def learned(cls, logarithms: Sequence[float]) -> ScalePrior:
        """Learn the prior from the log scales of past tasks, at least one; its variance has a prior of 1, worth one."""
        tasks = len(logarithms)
        middle = float(np.median(logarithms))
        squares = float(np.square(np.clip(np.asarray(logarithms) - middle, -_OUTLYING, _OUTLYING)).sum())
        return cls(middle, math.sqrt((squares + 1.0) / tasks * (1 + 1 / tasks)))

    @classmethod
    def average(cls, priors: Sequence[ScalePrior]) -> ScalePrior:
        """Average what several views have learned."""
        middles, deviations = zip(*((prior.middle, prior.deviation) for prior in priors), strict=True)
        return cls(float(np.mean(middles)), float(np.mean(deviations)))

    @classmethod
    def around(cls, results: NDArray[np.float64]) -> ScalePrior:
        """Make the prior of a task about whose space nothing is known, around the range of its results (n,)."""
        return cls(math.log(float(np.ptp(results)) or 1.0), 1.0)

    def grid(self) -> NDArray[np.float64]:
        """Return 9 equally likely scales."""
        quantiles: NDArray[np.float64] = ndtri((np.arange(_GRID) + 0.5) / _GRID)
        return np.exp(self.middle + self.deviation * quantiles)


def log_slope(performance: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    """Return the logarithm of the slope of performances (n,), not all equal, over their targets (n,)."""
    centred = performance - performance.mean()
    return math.log(centred @ targets) - math.log(targets @ targets)
