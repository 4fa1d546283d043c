"""The belief over a data set's vector h before its first result, learned from the vectors of past tasks.

A task's targets are y_t = Phi_t h_t + noise, with Phi_t the features of its configurations, and h_t ~ N(m, S). The
vectors, m and S follow from expectation maximisation; S has an inverse-Wishart prior, m a Gaussian one around 0. The
vectors of past tasks with near meta-features shift a new task's prior as far as that would have predicted the past
tasks. Everything is float64. Equations B6 to B10 of docs/method.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ITERATIONS = 3
_PRIOR_TASKS = 3.0
"""Weight of the prior of S, in tasks."""
_DEVIATION_SHARE = 1 / 3
"""Prior variance of a task's deviation from the mean of all, as a share of the kernel's amplitude."""
_MEAN_VARIANCE = 5.0
"""Prior variance of m, in units of that of a task's deviation from it."""
_TRUSTS, _REACHES = (0.3, 0.6, 0.85), (0.4, 0.7, 1.5)
"""Values that are tried in eq. B10."""
_POINTS = 100
_LEAST_TASKS = 3
"""Minimum number of tasks from which the trust in meta-features is learned."""


@dataclass(frozen=True, eq=False)
class Belief:
    """Past tasks' vectors and the prior of a new task's.

    Attributes:
        vectors: (tasks, k), posterior means of h_t.
        mean: (k,), m.
        covariance: (k, k), S, positive definite.
        noise: variance of the noise of one result, > 0.
        trust: the correlation of two tasks' deviations from m is trust * exp(-distance^2 / (2 reach^2)) (eq. B9); 0
            ignores the meta-features.
        reach: the distance of two meta-features in it, > 0.
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
        distances: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> Belief:
        """Learn the belief from past tasks by three rounds of expectation maximisation (eq. B7 and B8).

        Args:
            features: (n_t, k) for each task, at least one task.
            targets: (n_t,) for each task.
            amplitude: variance of the targets per unit of the features' inner products.
            noise: variance of the noise of one result, > 0.
            distances: (tasks, tasks), of the tasks' meta-features (eq. B2).
            rng: of the points on which trust and reach are chosen.
        """
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
        """Lower Cholesky factor (k, k) of the covariance."""
        factor: Tensor = torch.linalg.cholesky(self.covariance)
        return factor

    def for_task(
        self, distances: NDArray[np.float64], between: NDArray[np.float64]
    ) -> tuple[Tensor, Tensor, NDArray[np.float64]]:
        """Compute the prior of a new task's h (eq. B9).

        Args:
            distances: (tasks,), of the new task's meta-feature to the past tasks'.
            between: (tasks, tasks), of the past tasks' meta-features.

        Returns:
            The mean (k,), a root (k, k) with root @ root.T the covariance, and the weight (tasks,) of each past task's
            deviation from m in the mean.
        """
        weights, left = _leaning(self.trust, self.reach, distances, between)
        mean = self.mean + torch.from_numpy(weights) @ (self.vectors - self.mean)
        return mean, self.root * left**0.5, weights

    def _calibrated(
        self,
        features: Sequence[Tensor],
        targets: Sequence[Tensor],
        distances: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> Belief:
        """Choose trust and reach by leave-one-out prediction of the past tasks (eq. B10)."""
        tasks = len(targets)
        predicted, truths = [], []
        for phi, y in zip(features, targets, strict=True):
            row = rng.permutation(len(y))[:_POINTS]
            predicted.append((phi[row] @ self.vectors.T).numpy())
            truths.append(y[row].numpy())

        def errors(trust: float, reach: float) -> NDArray[np.float64]:
            """Mean squared error (tasks,) of each task's prior mean, made from the others."""
            result: NDArray[np.float64] = np.empty(tasks)
            for t in range(tasks):
                others = np.delete(np.arange(tasks), t)
                weights, _ = _leaning(trust, reach, distances[t, others], distances[np.ix_(others, others)])
                shares = weights + (1 - weights.sum()) / (tasks - 1 + 1 / _MEAN_VARIANCE)
                result[t] = np.square(predicted[t][:, others] @ shares - truths[t]).mean()
            return result

        plain, best, most = errors(0.0, 1.0), (0.0, 1.0), 0.0
        for trust, reach in itertools.product(_TRUSTS, _REACHES):
            saved = plain - errors(trust, reach)
            gain = float(saved.mean() - saved.std(ddof=1) / np.sqrt(tasks))
            if gain > most:
                best, most = (trust, reach), gain
        return replace(self, trust=best[0], reach=best[1])


def _condensed(phi: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Reduce phi (n, k) and y (n,) to at most k rows with the same likelihood of h."""
    if len(phi) <= phi.shape[1]:
        return phi, y
    q, r = torch.linalg.qr(phi)
    return r, q.T @ y


def _conditioned(mean: Tensor, covariance: Tensor, noise: float, phi: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Condition h on y = phi h + noise (eq. B7): its mean (k,), and a root (k, n) of the decrease of its covariance.

    Solves for the n results rather than the k features, as few results are known of most tasks.
    """
    shared = covariance @ phi.T
    factor = torch.linalg.cholesky(phi @ shared + noise * torch.eye(len(y), dtype=torch.float64))
    root = torch.linalg.solve_triangular(factor, shared.T, upper=False).T
    whitened = torch.linalg.solve_triangular(factor, (y - phi @ mean)[:, None], upper=False)[:, 0]
    return mean + root @ whitened, root


def _leaning(
    trust: float, reach: float, distances: NDArray[np.float64], between: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Weights (tasks,) of past deviations in the mean of a new one, and the remaining share of variance (eq. B9)."""
    if trust == 0:
        return np.zeros(len(distances)), 1.0
    near = trust * np.exp(-(distances**2) / (2 * reach**2))
    among = trust * np.exp(-(between**2) / (2 * reach**2))
    np.fill_diagonal(among, 1.0)
    # Not by Cholesky: where entries of meta-features are unknown, the distances need not be Euclidean, and then the
    # correlations need not be positive definite.
    weights = np.asarray(np.linalg.solve(among, near), np.float64)
    # The floor leaves uncertainty where a past task has the same meta-feature.
    return weights, max(1 - float(weights @ near), 0.05)
