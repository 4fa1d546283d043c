"""Which candidate to try next, given a Gaussian belief over what all of them bring and the results so far.

Plain arrays: a pick costs a few thousand operations per candidate, and importing this does not import torch.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtr, ndtri

_GRID = 9
_TASKS = 100
_OFFSET_VARIANCE = 100.0
"""Variance of a new task's offset in units of its scale: so wide that the first result says nothing about it."""
_FIRST_DEVIATIONS = 0.3


@dataclass
class Scales:
    """How far apart results lie per unit of the targets, in the last 100 tasks: the prior of a new task's scale.

    The logarithm of a task's scale is Gaussian; its variance starts at 1, worth one task.
    """

    logarithms: deque[float] = field(default_factory=lambda: deque(maxlen=_TASKS))

    def add(self, performance: np.ndarray, targets: np.ndarray) -> None:
        """Keep the slope of a task's results over its targets, (n,) each; a constant performance has none."""
        centred = performance - performance.mean()
        if (centred @ targets) > 0:
            self.logarithms.append(math.log(centred @ targets) - math.log(targets @ targets))

    def grid(self, results: np.ndarray) -> np.ndarray:
        """Equally likely scales of a new task; without any past task they are about the results' own spread."""
        tasks = len(self.logarithms)
        if not tasks:
            spread = np.ptp(results) or 1.0
            return spread * np.exp(ndtri((np.arange(_GRID) + 0.5) / _GRID))
        middle = np.median(self.logarithms)
        squares = float(np.square(np.asarray(self.logarithms) - middle).sum())
        variance = (squares + 1.0) / tasks * (1 + 1 / tasks)
        return np.exp(middle + math.sqrt(variance) * ndtri((np.arange(_GRID) + 0.5) / _GRID))


class Search:
    """The belief over one task's candidates: Gaussian, updated after each result.

    mean: (n,), of the targets. root: (n, k), with root @ root.T their covariance. noise: variance of a target on top.
    A result is scale x (target + offset): the offset is integrated out, of the scale's prior a grid is kept.
    """

    def __init__(self, mean: np.ndarray, root: np.ndarray, noise: float, scales: Scales) -> None:
        self.mean, self.root, self.noise, self.scales = mean, root, noise, scales
        self._variance = np.einsum("ij,ij->i", root, root)
        self._covered = np.empty((len(mean), 0))  # columns of the covariance, of the observed and the pending
        self._columns: dict[int, int] = {}
        self._results: dict[int, float] = {}

    def observe(self, index: int, result: float) -> None:
        """What a candidate brought, finite."""
        self._results[index] = result

    def expected(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of every candidate's target (noise apart) after the results, (n,) each."""
        if not self._results:
            return self.mean, np.sqrt(self._variance)
        _, weights, means, variance = self._conditioned([], 0.0)
        mean = weights @ means
        return mean, np.sqrt(np.maximum(variance + weights @ (means - mean) ** 2, 0))

    def scores(self, pending: list[int]) -> np.ndarray:
        """(n,) of which the highest should be tried next: the expected improvement on the best result so far, by what
        the candidates are good for (a lucky result of a poor one is none).

        pending: candidates without a result; they are taken to bring what is expected of them. Before the first result
        the score is an upper confidence bound.
        """
        if not self._results:
            mean, variance = self.mean, self._variance
            if pending:
                column = self._column(pending)
                inner = column[pending] + self.noise * np.eye(len(pending))
                variance = variance - np.einsum("ij,ij->i", column, np.linalg.solve(inner, column.T).T)
            return mean + _FIRST_DEVIATIONS * np.sqrt(np.maximum(variance, 0))
        scales, weights, means, variance = self._conditioned(pending, _OFFSET_VARIANCE)
        deviation = np.sqrt(np.maximum(variance, 1e-12))
        results = np.array(list(self._results.values()))
        best = (results.max() - results.mean()) / scales
        gap = (means - best[:, None]) / deviation
        improvement = deviation * (gap * ndtr(gap) + np.exp(-(gap**2) / 2) / math.sqrt(2 * math.pi))
        return (weights * scales) @ improvement

    def _conditioned(
        self, pending: list[int], offset_variance: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Scales (g,), their weights (g,), means (g, n) for each of them and the variance (n,) of target + offset.

        offset_variance: that of the offset of what is asked for; 0 asks for the targets alone.
        """
        observed = list(self._results)
        results = np.array([self._results[index] for index in observed])
        scales = self.scales.grid(results)
        column = self._column(observed)
        inverse = np.linalg.inv(column[observed] + self.noise * np.eye(len(observed)) + _OFFSET_VARIANCE)
        residuals = (results - results.mean()) / scales[:, None] - self.mean[observed]
        fit = np.einsum("gi,ij,gj->g", residuals, inverse, residuals)
        log_weights = -fit / 2 - len(observed) * np.log(scales)
        weights = np.exp(log_weights - log_weights.max())
        means = self.mean + residuals @ inverse @ (column + offset_variance).T

        # A result at its expected value leaves the means alone and takes its share of the variance.
        known = observed + pending
        column = self._column(known)
        inner = column[known] + self.noise * np.eye(len(known)) + _OFFSET_VARIANCE
        column = column + offset_variance
        variance = self._variance + offset_variance
        variance = variance - np.einsum("ij,ij->i", column, np.linalg.solve(inner, column.T).T)
        return scales, weights / weights.sum(), means, variance

    def _column(self, indices: list[int]) -> np.ndarray:
        """(n, len(indices)), columns of the targets' covariance."""
        if new := [index for index in indices if index not in self._columns]:
            self._columns |= {index: self._covered.shape[1] + place for place, index in enumerate(new)}
            self._covered = np.hstack([self._covered, self.root @ self.root[new].T])
        return self._covered[:, [self._columns[index] for index in indices]]
