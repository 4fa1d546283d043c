"""Tr-AutoML (Xue et al., CVPR 2019) as a baseline: transfer between data sets that rank probes alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from nni_hyperfd.belief.targets import relative_rank
from nni_hyperfd.recommenders.base import ScoringRecommender, Task
from nni_hyperfd.recommenders.simple import RankedTask
from nni_hyperfd.space import EncodedConfigurations

_PROBES = 2
_SIGNIFICANCE = 0.05


class TrAutoML(ScoringRecommender):
    """The performances of a few probe configurations serve as the data set's meta-feature.

    Data sets on which configurations rank alike share a cluster, and a new one takes over the best configuration of
    each data set of its cluster. The probes count towards the budget. They are the configurations that are furthest
    apart on the first task; as candidates are drawn afresh, the nearest candidates stand in for them. Two tasks share a
    cluster when a test of their rank correlation over the probes' surroundings (the older task's configurations, the
    newer task's results interpolated) rejects independence at 5 %. A new task joins the cluster of the task whose order
    of the probes it shares and whose standardised differences of them are nearest; without any past task it searches at
    random. The original is known here from its abstract; its Markov analysis, which merges and splits clusters later,
    is left out.

    Attributes:
        past: the past tasks of the space, the oldest first.
        profiles: of each past task the relative ranks of the probes, (probes,).
        best: of each past task its best configuration, (d,).
        clusters: of each past task the number of its cluster.
        probes: (probes, d), or None before the first task.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.past: list[RankedTask] = []
        self.profiles: list[NDArray[np.float64]] = []
        self.best: list[NDArray[np.float32]] = []
        self.clusters: list[int] = []
        self.probes: NDArray[np.float32] | None = None

    def start_task(self, task: Task, candidates: EncodedConfigurations) -> None:
        """Choose the candidates that stand in for the probes."""
        super().start_task(task, candidates)
        if self.probes is not None and self.probes.shape[1] != candidates.width:
            self._forget()  # another space: nothing carries over
        self._chosen = [] if self.probes is None else _nearest(candidates.vectors, self.probes[: task.budget - 1])

    def scores(self) -> NDArray[np.float64]:
        """Scores (n,): the probes first, then the best configurations of similar tasks in their order."""
        scores = np.zeros(len(self.candidates))
        if self.probes is None:
            return scores
        untried = [index for index in self._chosen if index not in self.asked]
        if untried:
            scores[untried] = np.arange(len(untried), 0, -1)
            return scores
        order = self._order_of_clusters()
        # The best configuration of the nearest member comes first: the candidate that is nearest to it is tried.
        taken = set(self.asked)
        for place, member in enumerate(order):
            distance = np.linalg.norm(self.candidates.vectors - self.best[member], axis=1)
            distance[list(taken)] = np.inf
            pick = int(distance.argmin())
            if not np.isfinite(distance[pick]):
                break
            taken.add(pick)
            scores[pick] = len(order) - place
        return scores

    def learn(self, indices: NDArray[np.int64], performance: NDArray[np.float64]) -> None:
        """Keep the task's results, in the cluster of the past task that it agrees with most."""
        vectors = self.candidates.vectors[indices]
        if self.probes is None:
            self.probes = _spread(vectors, _PROBES)
        past = RankedTask(self.task, self.candidates, indices, performance)
        own = relative_rank(performance)
        here = EncodedConfigurations(vectors)
        agreement = [_correlation(earlier.interpolate(here), own) for earlier in self.past]
        significant = [a for a, (r, p) in enumerate(agreement) if r > 0 and p < _SIGNIFICANCE]
        nearest = max(significant, key=lambda a: agreement[a][0], default=None)
        self.clusters.append(len(set(self.clusters)) if nearest is None else self.clusters[nearest])
        self.past.append(past)
        self.best.append(vectors[performance.argmax()])
        self.profiles.append(past.interpolate(EncodedConfigurations(self.probes)))

    def _forget(self) -> None:
        """Drop all past tasks."""
        self.past, self.profiles, self.best, self.clusters, self.probes = [], [], [], [], None

    def _order_of_clusters(self) -> list[int]:
        """Past tasks: the nearest by the probes, then the others of its cluster, newest first, then the rest."""
        seen = [index for index in self._chosen if index in self.results]
        own = np.array([self.results[index] for index in seen])
        newest_first = list(range(len(self.past)))[::-1]
        if len(set(own)) < 2:
            return newest_first
        profile = relative_rank(own) - 0.5
        theirs = np.array(self.profiles)[:, [self._chosen.index(index) for index in seen]] - 0.5
        nearest = int(np.linalg.norm(theirs - profile, axis=1).argmin())
        cluster = [t for t in newest_first if self.clusters[t] == self.clusters[nearest] and t != nearest]
        return [nearest, *cluster, *(t for t in newest_first if t != nearest and t not in cluster)]


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float]:
    """Spearman's correlation and its p-value; (0, 1) where it is not defined."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0, 1.0
    result = spearmanr(a, b)
    return float(result.statistic), float(result.pvalue)


def _spread(vectors: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Choose `count` rows far apart: the one nearest to the mean, then always the one furthest from those chosen."""
    chosen = [int(np.linalg.norm(vectors - vectors.mean(axis=0), axis=1).argmin())]
    while len(chosen) < min(count, len(vectors)):
        apart = np.linalg.norm(vectors[:, None] - vectors[chosen], axis=-1).min(axis=1)
        chosen.append(int(apart.argmax()))
    return vectors[chosen]


def _nearest(vectors: NDArray[np.float32], targets: NDArray[np.float32]) -> list[int]:
    """For each target the index of the nearest row; all indices differ, as far as there are rows."""
    chosen: list[int] = []
    for target in targets[: len(vectors)]:
        distance = np.linalg.norm(vectors - target, axis=1)
        distance[chosen] = np.inf
        chosen.append(int(distance.argmin()))
    return chosen
