"""The recommenders that learn nothing but what past tasks ranked high."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from nni_hyperfd.recommenders.base import Candidates, ScoringRecommender, Task
from nni_hyperfd.recommenders.targets import relative_rank

_NEIGHBOURS = 5


class RandomSearch(ScoringRecommender):
    """Uniformly drawn candidates."""

    def scores(self) -> np.ndarray:
        return np.zeros(len(self.candidates))


class PastTask:
    """The relative ranks of one past task's configurations, and between them their interpolation.

    A candidate gets the mean of the 5 nearest configurations' relative ranks, weighted by 1 / Euclidean distance: the
    very result where the configuration itself was measured, all but exactly.
    """

    def __init__(self, task: Task, candidates: Candidates, indices: np.ndarray, performance: np.ndarray) -> None:
        self.meta_feature = task.meta_feature
        self.width = candidates.vectors.shape[1]
        self._ranks = relative_rank(performance)
        self._tree = cKDTree(candidates.vectors[indices])

    def interpolate(self, candidates: Candidates) -> np.ndarray:
        """(n,) in (0, 1), higher is better."""
        k = min(_NEIGHBOURS, len(self._ranks))
        distance, index = self._tree.query(candidates.vectors, k=np.arange(1, k + 1))
        weight = 1 / (distance + 1e-3)
        return (weight * self._ranks[index]).sum(axis=1) / weight.sum(axis=1)


class MeanRank(ScoringRecommender):
    """The mean over past tasks of a configuration's (interpolated) relative rank."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.past: list[PastTask] = []

    def start_task(self, task: Task, candidates: Candidates) -> None:
        super().start_task(task, candidates)
        usable = [past for past in self.past if past.width == candidates.vectors.shape[1]]
        weights = self.weights(task, usable)
        ranks = [w * past.interpolate(candidates) for w, past in zip(weights, usable, strict=True) if w > 0]
        self._scores = np.sum([np.zeros(len(candidates)), *ranks], axis=0)

    def scores(self) -> np.ndarray:
        return self._scores

    def learn(self, indices: np.ndarray, performance: np.ndarray) -> None:
        self.past.append(PastTask(self.task, self.candidates, indices, performance))

    def weights(self, task: Task, past: list[PastTask]) -> np.ndarray:
        """How much each past task counts."""
        return np.ones(len(past))


class BestOnSource(MeanRank):
    """The candidates that were best on the first task of all."""

    def weights(self, task: Task, past: list[PastTask]) -> np.ndarray:
        return np.arange(len(past)) == 0


class NearestTasks(MeanRank):
    """kNN on meta-features: the mean rank over the 3 past tasks whose meta-features lie nearest.

    Each entry is scaled by its standard deviation over the tasks known; entries that are unknown on either side, or
    of tasks with another number of entries, say nothing. Ties, and a task without meta-feature, count as equally near.
    """

    def weights(self, task: Task, past: list[PastTask]) -> np.ndarray:
        if not past:
            return np.zeros(0)
        distance = task_distances(task.meta_feature, [p.meta_feature for p in past])
        return distance <= np.sort(distance)[: 3][-1]


def task_distances(own: np.ndarray | None, past: list[np.ndarray | None]) -> np.ndarray:
    """Root mean squared distance of meta-features, each entry in units of its standard deviation over all tasks.

    Entries that are unknown (not finite) on either side count as 1.4, the distance of two tasks drawn at random; so
    does every entry of a task without a meta-feature, or with one of another length.
    """
    width = 0 if own is None else len(own)
    if not width:
        return np.full(len(past), np.sqrt(2.0))
    unknown = np.full(width, np.nan)
    rows = np.array([own, *(p if p is not None and len(p) == width else unknown for p in past)], dtype=float)
    rows[~np.isfinite(rows)] = np.nan
    known = np.isfinite(rows)
    count = np.maximum(known.sum(axis=0), 1)
    filled = np.where(known, rows, 0.0)
    centred = np.where(known, rows - filled.sum(axis=0) / count, 0.0)
    scale = np.sqrt((centred**2).sum(axis=0) / count)
    centred = centred / np.where(scale > 0, scale, 1.0)
    squared = (centred[1:] - centred[0]) ** 2
    return np.sqrt(np.where(known[1:] & known[0], squared, 2.0).mean(axis=1))
