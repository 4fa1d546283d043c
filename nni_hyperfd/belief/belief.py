"""What is believed of a data set's vector h before its first result, learned from the vectors of past tasks.

A task's targets are y_t = Phi_t h_t + noise, with Phi_t the features of its configurations, and h_t ~ N(m, S). The
vectors, m and S follow from expectation maximisation: S has an inverse-Wishart prior worth a few tasks around a
multiple of the identity (the kernel's own covariance), m one around 0. A new task's h leans on past tasks with near
meta-features as far as that would have foreseen the past ones. Everything is float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

_ITERATIONS = 3
_PRIOR_TASKS = 3.0
"""How many tasks the prior of S is worth."""
_DEVIATION_SHARE = 1 / 3
"""Variance of one task's deviation from the mean of all, as a share of the kernel's amplitude."""
_MEAN_VARIANCE = 5.0
"""Variance of m, in units of a task's deviation from it."""
_TRUSTS, _REACHES = (0.3, 0.6, 0.85), (0.4, 0.7, 1.5)
_POINTS = 100
_LEAST_TASKS = 3
"""Fewer say nothing about how far to trust the meta-features."""


@dataclass(frozen=True, eq=False)
class Belief:
    """Past tasks' vectors and the prior of a new one.

    vectors: (tasks, k), h_t. mean: (k,), m. covariance: (k, k), S. noise: variance of a result. trust, reach: the
    correlation of two tasks' deviations from m is trust x exp(-distance^2 / 2 reach^2).
    """

    vectors: Tensor
    mean: Tensor
    covariance: Tensor
    noise: float
    trust: float = 0.0
    reach: float = 1.0

    @classmethod
    def learned(
        cls,
        features: Sequence[Tensor],
        targets: Sequence[Tensor],
        amplitude: float,
        noise: float,
        distances: np.ndarray,
        rng: np.random.Generator,
    ) -> Belief:
        """features: (n_t, k) per task, tasks >= 1; targets: (n_t,). amplitude: variance of a task's targets per unit of
        the features' inner products; noise: that of a result. distances: (tasks, tasks), of their meta-features."""
        tasks, k = len(features), features[0].shape[1]
        isotropic = _DEVIATION_SHARE * amplitude * torch.eye(k, dtype=torch.float64)
        mean, covariance = torch.zeros(k, dtype=torch.float64), isotropic
        seen = [_condensed(phi, y) for phi, y in zip(features, targets, strict=True)]
        for _ in range(_ITERATIONS):
            conditioned = [_conditioned(mean, covariance, noise, phi, y) for phi, y in seen]
            vectors = torch.stack([vector for vector, _ in conditioned])
            taken = torch.cat([root for _, root in conditioned], dim=1)
            mean = vectors.sum(dim=0) / (tasks + 1 / _MEAN_VARIANCE)
            deviations = vectors - mean
            scatter = tasks * covariance - taken @ taken.T + deviations.T @ deviations
            covariance = (_PRIOR_TASKS * isotropic + scatter) / (_PRIOR_TASKS + tasks)
        belief = cls(vectors, mean, covariance, noise)
        return belief if tasks < _LEAST_TASKS else belief._calibrated(features, targets, distances, rng)

    @cached_property
    def root(self) -> Tensor:
        return torch.linalg.cholesky(self.covariance)

    def for_task(self, distances: np.ndarray, between: np.ndarray) -> tuple[Tensor, Tensor, np.ndarray]:
        """Mean (k,) of a new task's h, a root (k, k) of its covariance (root @ root.T), and the weight (tasks,) that
        each past task's deviation from the mean has in it.

        distances: (tasks,), of the new task's meta-feature to the past ones'; between: (tasks, tasks), of these.
        """
        weights, left = _leaning(self.trust, self.reach, distances, between)
        mean = self.mean + torch.from_numpy(weights) @ (self.vectors - self.mean)
        return mean, self.root * left**0.5, weights

    def _calibrated(
        self, features: Sequence[Tensor], targets: Sequence[Tensor], distances: np.ndarray, rng: np.random.Generator
    ) -> Belief:
        """The trust and reach under which the others' vectors foretell each past task with the smallest squared error;
        no trust unless it beats the plain mean by more than its standard error over the tasks."""
        tasks = len(targets)
        foretold, truths = [], []
        for phi, y in zip(features, targets, strict=True):
            row = rng.permutation(len(y))[:_POINTS]
            foretold.append((phi[row] @ self.vectors.T).numpy())
            truths.append(y[row].numpy())

        def errors(trust: float, reach: float) -> np.ndarray:
            """(tasks,), mean squared error of each task's prior mean, made from the others."""
            result = np.empty(tasks)
            for t in range(tasks):
                others = np.delete(np.arange(tasks), t)
                weights, _ = _leaning(trust, reach, distances[t, others], distances[np.ix_(others, others)])
                shares = weights + (1 - weights.sum()) / (tasks - 1 + 1 / _MEAN_VARIANCE)
                result[t] = np.square(foretold[t][:, others] @ shares - truths[t]).mean()
            return result

        plain, best, most = errors(0.0, 1.0), (0.0, 1.0), 0.0
        for trust, reach in itertools.product(_TRUSTS, _REACHES):
            saved = plain - errors(trust, reach)
            surely = saved.mean() - saved.std(ddof=1) / np.sqrt(tasks)
            if surely > most:
                best, most = (trust, reach), surely
        return replace(self, trust=best[0], reach=best[1])


def _condensed(phi: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """No more rows than columns that say the same of h: phi (n, k), y (n,)."""
    if len(phi) <= phi.shape[1]:
        return phi, y
    q, r = torch.linalg.qr(phi)
    return r, q.T @ y


def _conditioned(mean: Tensor, covariance: Tensor, noise: float, phi: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (k,) of h given y = phi h + noise, and a root (k, n) of what y takes from h's covariance.

    Solves for the n results rather than the k features: of most tasks few results are known.
    """
    shared = covariance @ phi.T
    factor = torch.linalg.cholesky(phi @ shared + noise * torch.eye(len(y), dtype=torch.float64))
    root = torch.linalg.solve_triangular(factor, shared.T, upper=False).T
    whitened = torch.linalg.solve_triangular(factor, (y - phi @ mean)[:, None], upper=False)[:, 0]
    return mean + root @ whitened, root


def _leaning(trust: float, reach: float, distances: np.ndarray, between: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights of past deviations in the conditional mean of a new one, and the share of variance that is left."""
    if trust == 0:
        return np.zeros(len(distances)), 1.0
    near = trust * np.exp(-(distances**2) / (2 * reach**2))
    among = trust * np.exp(-(between**2) / (2 * reach**2))
    np.fill_diagonal(among, 1.0)
    weights = np.linalg.solve(among, near)
    # The floor keeps a past task that looks the very same from ending all doubt.
    return weights, max(1 - float(weights @ near), 0.05)
