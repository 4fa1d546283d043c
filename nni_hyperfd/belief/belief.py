"""The belief over a data set's vector h before its first result, learned from past tasks.

A task's targets are F_t h_t + noise, with F_t the features of its configurations, and h_t ~ N(m, S). Given S, all that
the tasks say about m is known in closed form; S, which has an inverse-Wishart prior, and the scales of the tasks follow
from expectation maximisation. The vectors of past tasks with near meta-features shift a new task's prior as far as that
would have predicted the tasks that are known whole. Everything is float64. Equations B6 to B10 of docs/method.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.belief.agreement import agreeing
from nni_hyperfd.belief.evidence import Evidence, Seen, Whole
from nni_hyperfd.belief.scales import ScalePrior

_ROUNDS = 3
_PRIOR_TASKS = 3.0
"""Weight of the prior of S, in tasks."""
_DEVIATION_SHARE = 1 / 3
"""Prior variance of a task's deviation from the mean of all, as a share of the kernel's amplitude."""
_MEAN_VARIANCE = 5.0
"""Prior variance of m, in units of that of a task's deviation from it."""
_TRUSTS, _REACHES = (0.3, 0.6, 0.85), (0.4, 0.7, 1.5)
"""Values that are tried in eq. B10."""
_LEAST_TASKS = 3
"""Minimum number of tasks from which the trust in meta-features is learned."""


@dataclass(frozen=True, eq=False)
class Belief:
    """Past tasks' vectors and the prior of a new task's.

    Attributes:
        vectors: (tasks, k), posterior means of h_t.
        mean: (k,), posterior mean of m.
        doubt: (k, k), posterior covariance of m.
        covariance: (k, k), S, positive definite.
        noise: variance of the noise of one target, > 0.
        scales: the prior of a new task's scale.
        between: (tasks, tasks), distances of the tasks' meta-features (eq. B2).
        trust: the correlation of two tasks' deviations from m is trust * exp(-distance^2 / (2 reach^2)) (eq. B9); 0
            ignores the meta-features.
        reach: the distance of two meta-features in it, > 0.
    """

    vectors: NDArray[np.float64]
    mean: NDArray[np.float64]
    doubt: NDArray[np.floating]
    covariance: NDArray[np.float64]
    noise: float
    scales: ScalePrior
    between: NDArray[np.float64]
    trust: float = 0.0
    reach: float = 1.0

    @classmethod
    def learned(
        cls, tasks: Sequence[Evidence], amplitude: float, noise: float, distances: NDArray[np.float64]
    ) -> Belief:
        """Learn the belief from past tasks by three rounds of expectation maximisation (eq. B7 and B8).

        A task that contradicts the others keeps its vector, to which meta-features may lead, but says nothing of m and
        S.

        Args:
            tasks: what each says, at least one.
            amplitude: variance of the targets per unit of the features' inner products.
            noise: variance of the noise of one target, > 0.
            distances: (tasks, tasks), of the tasks' meta-features (eq. B2).
        """
        k = tasks[0].features.shape[1]
        isotropic = _DEVIATION_SHARE * amplitude * np.eye(k)
        mean, root = np.zeros(k), np.linalg.cholesky(isotropic)
        scales = _first_scales(tasks)
        seen = [task.seen(mean, root, noise, scales) for task in tasks]
        kept = agreeing(tasks, seen, root, _MEAN_VARIANCE)
        for _ in range(_ROUNDS):
            middle, doubt = _centre([seen[place] for place in kept])
            deviations = np.array([one.told - one.information @ middle for one in seen])
            scatter = len(kept) * np.eye(k) + deviations[kept].T @ deviations[kept]
            for place in kept:
                scatter += np.outer(seen[place].spread, seen[place].spread) - seen[place].information
            mean, doubt, vectors = root @ middle, root @ doubt @ root.T, (middle + deviations) @ root.T
            covariance = (_PRIOR_TASKS * isotropic + root @ scatter @ root.T) / (_PRIOR_TASKS + len(kept))
            root = np.linalg.cholesky(covariance)
            scales = ScalePrior.learned([one.log_scale for one in seen])
            seen = [task.seen(mean, root, noise, scales) for task in tasks]
        return cls(vectors, mean, doubt, covariance, noise, scales, distances)._calibrated(tasks)

    def leaning(self, distances: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        """Compute how the prior of a new task's h differs from N(m, S + doubt) (eq. B9).

        Args:
            distances: (tasks,), of the new task's meta-feature to the past tasks'.

        Returns:
            The weight (tasks,) of each past task's deviation from m in the mean, and the share of S that is left.
        """
        if not self.trust:
            return np.zeros(len(distances)), 1.0
        near = _correlation(self.trust, self.reach, distances)
        weights = self._inverse @ near
        # The floor leaves uncertainty where a past task has the same meta-feature.
        return weights, max(1 - float(weights @ near), 0.05)

    @cached_property
    def _inverse(self) -> NDArray[np.floating]:
        """Inverse (tasks, tasks) of the past tasks' correlations."""
        # Not by Cholesky: where entries of meta-features are unknown, the distances need not be Euclidean, and then the
        # correlations need not be positive definite.
        inverse: NDArray[np.floating] = np.linalg.inv(_among(self.trust, self.reach, self.between))
        return inverse

    def _calibrated(self, tasks: Sequence[Evidence]) -> Belief:
        """Choose trust and reach by leave-one-out prediction of the past tasks that are known whole (eq. B10)."""
        places = [place for place, task in enumerate(tasks) if isinstance(task, Whole)]
        if len(places) < _LEAST_TASKS:
            return self
        whole = [task for task in tasks if isinstance(task, Whole)]
        vectors, apart, count = self.vectors[places], self.between[np.ix_(places, places)], len(places)
        predicted = [task.features @ vectors.T for task in whole]

        def errors(trust: float, reach: float) -> NDArray[np.float64]:
            """Mean squared error (tasks,) of each task's prior mean, made from the others, up to a constant."""
            result: NDArray[np.float64] = np.empty(count)
            for t, task in enumerate(whole):
                others = np.delete(np.arange(count), t)
                among = _among(trust, reach, apart[np.ix_(others, others)])
                weights = np.linalg.solve(among, _correlation(trust, reach, apart[t, others]))
                shares = weights + (1 - weights.sum()) / (count - 1 + 1 / _MEAN_VARIANCE)
                result[t] = np.square(predicted[t][:, others] @ shares - task.targets).sum() / task.count
            return result

        plain, best, most = errors(0.0, 1.0), (0.0, 1.0), 0.0
        for trust, reach in itertools.product(_TRUSTS, _REACHES):
            saved = plain - errors(trust, reach)
            gain = float(saved.mean() - saved.std(ddof=1) / np.sqrt(count))
            if gain > most:
                best, most = (trust, reach), gain
        return replace(self, trust=best[0], reach=best[1])


def _first_scales(tasks: Sequence[Evidence]) -> ScalePrior:
    """Prior of the scales before anything is learned, from the tasks that are known whole, or else guesses."""
    known = [task for task in tasks if isinstance(task, Whole)] or tasks
    return ScalePrior.learned([task.log_scale for task in known])


def _centre(seen: Sequence[Seen]) -> tuple[NDArray[np.float64], NDArray[np.floating]]:
    """Posterior mean (k,) and covariance (k, k) of m in whitened coordinates, given S and the scales (eq. B7)."""
    k = seen[0].rows.shape[1]
    doubt = np.linalg.inv(np.eye(k) / _MEAN_VARIANCE + sum(one.information for one in seen))
    return doubt @ sum(one.told for one in seen), doubt


def _correlation(trust: float, reach: float, distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlations of tasks at these distances, of their deviations from m (eq. B9)."""
    return trust * np.exp(-np.square(distances) / (2 * reach**2))


def _among(trust: float, reach: float, between: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlations (tasks, tasks) of the past tasks among themselves."""
    among = _correlation(trust, reach, between)
    np.fill_diagonal(among, 1.0)
    return among
