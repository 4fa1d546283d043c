"""Tr-AutoML (Xue et al., CVPR 2019) as a baseline: transfer between data sets on which probes do alike."""

from __future__ import annotations

import numpy as np
from scipy.stats import spearmanr

from nni_hyperfd.belief.targets import relative_rank
from nni_hyperfd.recommenders.base import ScoringRecommender, Task
from nni_hyperfd.recommenders.simple import PastTask
from nni_hyperfd.space.encoded import EncodedConfigurations

_PROBES = 2
_SIGNIFICANCE = 0.05


class TrAutoML(ScoringRecommender):
    """The performances of a few probe configurations are a data set's meta-feature; data sets on which configurations
    rank alike share a cluster, and a new one takes over the best configuration of each data set of its cluster.

    The probes are charged to the budget. They are the configurations spread widest over the first task; candidates
    being drawn afresh, the nearest stand in for them. Two tasks share a cluster when a test of their rank correlation
    over the probes' surroundings (the older task's configurations, the newer's results interpolated) rejects
    independence at 5 %. A new task joins the cluster of the task whose order of the probes it shares and whose
    standardised differences of them are nearest; without any past task it searches at random. Of the original, known
    here by its abstract, the Markov analysis that merges and splits clusters later is left out.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self._forget()

    def start_task(self, task: Task, candidates: EncodedConfigurations) -> None:
        super().start_task(task, candidates)
        if self.probes is not None and self.probes.shape[1] != candidates.vectors.shape[1]:
            self._forget()  # another space: nothing carries over
        self._chosen = [] if self.probes is None else _nearest(candidates.vectors, self.probes[: task.budget - 1])

    def scores(self) -> np.ndarray:
        scores = np.zeros(len(self.candidates))
        if self.probes is None:
            return scores
        untried = [index for index in self._chosen if index not in self.asked]
        if untried:
            scores[untried] = np.arange(len(untried), 0, -1)
            return scores
        order = self._order_of_clusters()
        # The first best configuration of the nearest member first: what lies nearest to it is tried.
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

    def learn(self, indices: np.ndarray, performance: np.ndarray) -> None:
        vectors = self.candidates.vectors[indices]
        if self.probes is None:
            self.probes = _spread(vectors, _PROBES)
        past = PastTask(self.task, self.candidates, indices, performance)
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
        self.past: list[PastTask] = []
        self.profiles: list[np.ndarray] = []
        self.best: list[np.ndarray] = []
        self.clusters: list[int] = []
        self.probes: np.ndarray | None = None

    def _order_of_clusters(self) -> list[int]:
        """Past tasks, the nearest by the probes first, then the others of its cluster, newest first, then the rest."""
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


def _correlation(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Spearman's correlation and its p-value; (0, 1) where there is none."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0, 1.0
    result = spearmanr(a, b)
    return float(result.statistic), float(result.pvalue)


def _spread(vectors: np.ndarray, count: int) -> np.ndarray:
    """`count` rows far apart: the one nearest to the middle, then always the one furthest from those chosen."""
    chosen = [int(np.linalg.norm(vectors - vectors.mean(axis=0), axis=1).argmin())]
    while len(chosen) < min(count, len(vectors)):
        apart = np.linalg.norm(vectors[:, None] - vectors[chosen], axis=-1).min(axis=1)
        chosen.append(int(apart.argmax()))
    return vectors[chosen]


def _nearest(vectors: np.ndarray, targets: np.ndarray) -> list[int]:
    """For each target the row nearest to it, all different as far as there are rows."""
    chosen: list[int] = []
    for target in targets[: len(vectors)]:
        distance = np.linalg.norm(vectors - target, axis=1)
        distance[chosen] = np.inf
        chosen.append(int(distance.argmin()))
    return chosen
