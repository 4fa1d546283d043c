"""What a past task says about its vector h, in the coordinates in which h ~ N(0, I) (eq. B6 to B8, docs/method.md).

A task that is known whole says where each of its configurations stands among all others. Of most tasks only the picks
are known, deliberately good ones: that they are good says nothing about the rest of the space, so what counts is how
they differ, on a scale that is not known either.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dtrtrs

from nni_hyperfd.belief.scales import ScalePrior, log_slope
from nni_hyperfd.belief.targets import normal_scores

OFFSET_VARIANCE = 100.0
"""Prior variance of a task's offset in units of its scale: so wide that the level of the results says nothing."""
_WHOLE = 20
"""Minimum number of results of a task that counts as known whole."""
_WIDEST = 2.0
"""Maximum standard deviation of known results in units of the scale: targets are standard normal over the space."""


@dataclass(frozen=True, eq=False)
class PastTask:
    """The known results of a past task.

    Attributes:
        inputs: float32 (n, d), encoded configurations.
        performance: (n,), finite, at least two different ones, higher is better.
        meta_feature: (m,), or None; an entry that is not finite is unknown.
        sampled: whether they represent the space, as those of the platform's own data sets do; False for picks, which
            were chosen for being good.
    """

    inputs: NDArray[np.float32]
    performance: NDArray[np.float64]
    meta_feature: NDArray[np.floating] | None = None
    sampled: bool = True

    @property
    def whole(self) -> bool:
        """Whether ranks among the results are ranks in the space."""
        return self.sampled and len(self.performance) >= _WHOLE


@dataclass(frozen=True, eq=False)
class Seen:
    """Results in whitened coordinates: h = mean + root @ u with u ~ N(0, I), and rows @ u + mean's part = values.

    Attributes:
        rows: (n, k), whitened features.
        values: (n,), whitened targets, the mean's part included; of an uncertain scale the expected ones.
        spread: (k,), standard deviation of the posterior mean of u that the uncertain scale brings.
        log_scale: expected logarithm of the scale.
    """

    rows: NDArray[np.float64]
    values: NDArray[np.float64]
    spread: NDArray[np.float64]
    log_scale: float

    @cached_property
    def information(self) -> NDArray[np.float64]:
        """What the results add to the precision (k, k) of m in whitened coordinates."""
        precision: NDArray[np.float64] = self.rows.T @ self.rows
        return precision

    @cached_property
    def told(self) -> NDArray[np.float64]:
        """What they add to the precision times the mean (k,)."""
        weighted: NDArray[np.float64] = self.rows.T @ self.values
        return weighted


class Evidence(ABC):
    """What one past task says.

    Attributes:
        features: (n, k), of its configurations.
        log_scale: logarithm of the scale, or a first guess of it.
    """

    features: NDArray[np.float64]
    log_scale: float

    @abstractmethod
    def seen(self, mean: NDArray[np.float64], root: NDArray[np.floating], noise: float, prior: ScalePrior) -> Seen:
        """Whiten the results.

        Args:
            mean: (k,), of h, by which an uncertain scale is judged.
            root: (k, k), with root @ root.T the covariance of h.
            noise: variance of the noise of one target.
            prior: of the scale.
        """


class Whole(Evidence):
    """A task that is known whole: its targets are normal scores (eq. B1).

    Args:
        features: (n, k), of its configurations.
        performance: (n,), not all equal.

    Attributes:
        features: (at most k, k), rotated with the targets into as few rows as have the same likelihood of h.
        targets: (at most k,).
        count: number of results.
        log_scale: logarithm of the scale.
    """

    def __init__(self, features: NDArray[np.float64], performance: NDArray[np.float64]) -> None:
        self.features, self.targets = features, normal_scores(performance)
        self.count, self.log_scale = len(performance), log_slope(performance, self.targets)
        if len(features) > features.shape[1]:
            q, self.features = np.linalg.qr(features)
            self.targets = q.T @ self.targets

    def seen(self, mean: NDArray[np.float64], root: NDArray[np.floating], noise: float, prior: ScalePrior) -> Seen:
        """Whiten the targets, whose scale is known."""
        shared = self.features @ root
        factor = np.linalg.cholesky(shared @ shared.T + noise * np.eye(len(shared)))
        rows, values = whitened(factor, shared), whitened(factor, self.targets)
        return Seen(rows, values, np.zeros(len(mean)), self.log_scale)


class Picks(Evidence):
    """A task of which a few deliberately good results are known, with an offset and a scale of its own (eq. B7).

    Args:
        features: (n, k), of its configurations.
        performance: (n,), not all equal.
    """

    def __init__(self, features: NDArray[np.float64], performance: NDArray[np.float64]) -> None:
        self.features, self.results = features, performance - performance.max()
        self.log_scale = math.log(np.ptp(self.results))
        self._least = math.log(self.results.std() / _WIDEST)

    def seen(self, mean: NDArray[np.float64], root: NDArray[np.floating], noise: float, prior: ScalePrior) -> Seen:
        """Whiten the results divided by the scale, the offset integrated out."""
        shared, n = self.features @ root, len(self.results)
        scales = ScalePrior(max(prior.middle, self._least), prior.deviation).grid()
        factor = np.linalg.cholesky(shared @ shared.T + noise * np.eye(n) + OFFSET_VARIANCE)
        rows, unscaled = whitened(factor, shared), whitened(factor, self.results)
        expected = whitened(factor, self.features @ mean)
        surprise = unscaled / scales[:, None] - expected
        log_weights = -np.square(surprise).sum(axis=1) / 2 - n * np.log(scales)
        weights = np.exp(log_weights - np.logaddexp.reduce(log_weights))
        inverse = weights @ (1 / scales)
        variance = max(float(weights @ scales**-2.0 - inverse**2), 0.0)
        return Seen(rows, inverse * unscaled, variance**0.5 * (rows.T @ unscaled), float(weights @ np.log(scales)))


def evidence(task: PastTask, features: NDArray[np.float64]) -> Evidence:
    """What a past task with these features (n, k) says."""
    return (Whole if task.whole else Picks)(features, task.performance)


def whitened(factor: NDArray[np.floating], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve factor @ x = values, for a lower triangular factor (k, k) and values (k, m) or (k,)."""
    solution: NDArray[np.float64]
    solution, failed = dtrtrs(factor, values, lower=1)  # for small systems a third of the time of `solve_triangular`
    if failed:
        raise np.linalg.LinAlgError("the factor is singular")
    return solution
