"""Choice of the next candidate, from a Gaussian belief over all candidates' targets and the results so far.

Plain arrays: a pick takes a few thousand operations per candidate, and importing this module does not import torch.
Equations B12 to B17 of docs/method.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, ndtr

from nni_hyperfd.belief.evidence import OFFSET_VARIANCE, whitened
from nni_hyperfd.belief.scales import ScalePrior

_FAR = 1e3
_TINY = 1e-200
_FIRST_DEVIATIONS = 0.3
"""Standard deviations on top of the mean in the score of a first pick (eq. B17)."""


class Covariance(NamedTuple):
    """Covariance of the candidates' targets, of which the columns of few candidates are ever needed.

    Attributes:
        variance: (n,), its diagonal.
        columns: computes the columns (n, k) of k candidates.
    """

    variance: NDArray[np.float64]
    columns: Callable[[list[int]], NDArray[np.float64]]

    @classmethod
    def product(cls, left: NDArray[np.float64], right: NDArray[np.float64]) -> Covariance:
        """The covariance left @ right.T, of matrices (n, k)."""
        return cls(np.einsum("ij,ij->i", left, right), partial(_product, left, right))


def _product(left: NDArray[np.float64], right: NDArray[np.float64], indices: list[int]) -> NDArray[np.float64]:
    """Columns (n, len(indices)) of left @ right.T."""
    columns: NDArray[np.float64] = left @ right[indices].T
    return columns


class _Posterior(NamedTuple):
    """What is believed of all candidates' targets, the task's offset included, after the results.

    Attributes:
        scales: (g,), grid of the task's scale.
        log_weights: (g,), log probabilities of the scales.
        means: (g, n), mean of each candidate for each scale.
        variance: (n,), variance of each candidate, the same for all scales.
    """

    scales: NDArray[np.float64]
    log_weights: NDArray[np.float64]
    means: NDArray[np.float64]
    variance: NDArray[np.float64]


class Search:
    """Gaussian belief over one task's candidates, updated after each result.

    A result is scale * (target + offset + noise). The offset is integrated out; of the scale's prior a grid is kept.

    Args:
        mean: (n,), prior mean of the candidates' targets.
        covariance: prior covariance of the candidates' targets.
        noise: variance of the noise, > 0, in units of the targets.
        scales: the prior of the scale; None surrounds the range of the results.
        outer: bool (n,), candidates that come last until two results can be compared; for a space about which nothing
            is known (eq. B17).
    """

    def __init__(
        self,
        mean: NDArray[np.float64],
        covariance: Covariance,
        noise: float,
        scales: ScalePrior | None,
        outer: NDArray[np.bool_] | None = None,
    ) -> None:
        self.mean, self.covariance, self.noise, self.scales, self.outer = mean, covariance, noise, scales, outer
        # Columns of the covariance, of the observed and the pending candidates only: most are never needed.
        self._covered: NDArray[np.float64] = np.empty((len(mean), 0))
        self._columns: dict[int, int] = {}
        self._results: dict[int, float] = {}

    def observe(self, index: int, result: float) -> None:
        """Take in the finite result of a candidate."""
        self._results[index] = result

    def expected(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and standard deviation (n,) of every candidate's target, without noise, after the results."""
        if not self._results:
            return self.mean, np.sqrt(self.covariance.variance)
        posterior = self._posterior([], 0.0)
        weights = np.exp(posterior.log_weights)
        mean = weights @ posterior.means
        variance = posterior.variance + weights @ (posterior.means - mean) ** 2
        return mean, np.sqrt(np.maximum(variance, 0))

    def scores(self, pending: list[int]) -> NDArray[np.float64]:
        """Score every candidate; the one with the highest score should be tried next.

        The score is the logarithm of the expected improvement (eq. B16) on the best result so far, of the candidates'
        targets without noise: a lucky result of a poor candidate is no improvement. Before the first result it is an
        upper confidence bound (eq. B17).

        Args:
            pending: candidates whose trials are running; their results are taken to be the expected ones.

        Returns:
            (n,), finite.
        """
        scores = self._improvements(pending) if self._results else self._bounds(pending)
        if self.outer is not None and len(self._results) < 2:
            scores[self.outer] -= 1.0 + np.ptp(scores)
        return scores

    def _bounds(self, pending: list[int]) -> NDArray[np.float64]:
        """Upper confidence bounds (n,) before the first result (eq. B17)."""
        variance = self._variance_beside(pending) if pending else self.covariance.variance
        bounds = self.mean + _FIRST_DEVIATIONS * np.sqrt(np.maximum(variance, 0))
        rounded: NDArray[np.float64] = bounds.round(9)  # what is equally good but for rounding is drawn from
        return rounded

    def _improvements(self, pending: list[int]) -> NDArray[np.float64]:
        """Logarithms (n,) of the expected improvements on the best result (eq. B16)."""
        posterior = self._posterior(pending, OFFSET_VARIANCE)
        deviation: NDArray[np.float64] = np.sqrt(np.maximum(posterior.variance, 1e-12))
        results = np.array(list(self._results.values()))
        best = (results.max() - results.mean()) / posterior.scales
        gap = (posterior.means - best[:, None]) / deviation
        log_weights = posterior.log_weights + np.log(posterior.scales)
        improvement: NDArray[np.float64] = np.exp(log_weights) @ unit_improvement(gap)
        hopeless = improvement < _TINY  # rounded to nothing; logarithms tell them apart, but take thrice the time
        scores = np.log(np.maximum(improvement, _TINY))
        if hopeless.any():
            logarithms = log_weights[:, None] + log_unit_improvement(gap[:, hopeless])
            scores[hopeless] = np.logaddexp.reduce(logarithms)  # logsumexp, without the overhead of scipy's
        return scores + np.log(deviation)

    def _variance_beside(self, pending: list[int]) -> NDArray[np.float64]:
        """Variance (n,) of the targets before the first result, given the pending candidates."""
        column = self._column(pending)
        taken = whitened(np.linalg.cholesky(column[pending] + self.noise * np.eye(len(pending))), column.T)
        left: NDArray[np.float64] = self.covariance.variance - np.square(taken).sum(axis=0)
        return left

    def _posterior(self, pending: list[int], offset_variance: float) -> _Posterior:
        """Condition on the results (eq. B13 and B14).

        Args:
            pending: candidates without a result. A result at its expected value leaves the means as they are and
                reduces the variance like any other.
            offset_variance: variance of the offset in what is asked for; 0 asks for the targets alone.
        """
        observed = list(self._results)
        known = observed + pending
        results = np.array([self._results[index] for index in observed])
        scales = (self.scales or ScalePrior.around(results)).grid()
        residuals = (results - results.mean()) / scales[:, None] - self.mean[observed]

        column = self._column(known)
        factor = np.linalg.cholesky(column[known] + self.noise * np.eye(len(known)) + OFFSET_VARIANCE)
        taken = whitened(factor, (column + offset_variance).T)
        # The leading block of the factor is the factor of the leading block: that of the observed alone.
        surprise = whitened(factor[: len(observed), : len(observed)], residuals.T)
        log_weights = -np.square(surprise).sum(axis=0) / 2 - len(observed) * np.log(scales)
        return _Posterior(
            scales,
            log_weights - np.logaddexp.reduce(log_weights),
            self.mean + surprise.T @ taken[: len(observed)],
            self.covariance.variance + offset_variance - np.square(taken).sum(axis=0),
        )

    def _column(self, indices: list[int]) -> NDArray[np.float64]:
        """Columns (n, len(indices)) of the targets' covariance."""
        if new := [index for index in indices if index not in self._columns]:
            self._columns |= {index: self._covered.shape[1] + place for place, index in enumerate(new)}
            self._covered = np.hstack([self._covered, self.covariance.columns(new)])
        return self._covered[:, [self._columns[index] for index in indices]]


def unit_improvement(gap: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute E[max(0, gap + e)] for a standard normal e: phi(gap) + gap Phi(gap) (eq. B16).

    Args:
        gap: any shape, distance of the mean from the best so far in standard deviations.

    Returns:
        The same shape; its relative error is below 1e-11 for gaps down to -37, below which it is 0 or nearly so.
    """
    density: NDArray[np.float64] = np.exp(-(gap**2) / 2) / math.sqrt(2 * math.pi)
    improvement: NDArray[np.float64] = density + gap * ndtr(gap)
    return improvement


def log_unit_improvement(gap: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute log E[max(0, gap + e)] for a standard normal e: log(phi(gap) + gap Phi(gap)) (eq. B16).

    After Ament et al. (2023): accurate also where the expectation itself underflows.

    Args:
        gap: any shape, distance of the mean from the best so far in standard deviations.

    Returns:
        The same shape, increasing with the gap; finite for |gap| < 1e154.
    """
    result = np.empty_like(gap)
    near = gap > -1
    z = gap[near]
    result[near] = np.log(np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) + z * ndtr(z))
    # With Mills' ratio R, phi(z) + z Phi(z) = phi(z) (1 - |z| R(|z|)). Far out the difference is lost to rounding, but
    # its lower bound 1 / (z^2 + 3) is exact up to a factor of 1 + 6 / z^4.
    z = -gap[~near]
    close = np.minimum(z, _FAR)
    rest = 1 - close * math.sqrt(math.pi / 2) * erfcx(close / math.sqrt(2))
    result[~near] = np.log(np.where(z < _FAR, rest, 1 / (z**2 + 3))) - z**2 / 2 - math.log(2 * math.pi) / 2
    return result
