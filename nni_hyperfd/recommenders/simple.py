"""The recommenders that learn nothing but what past tasks ranked high."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from nni_hyperfd.belief.distances import distances
from nni_hyperfd.belief.targets import relative_rank
from nni_hyperfd.recommenders.base import ScoringRecommender, Task
from nni_hyperfd.space.encoded import EncodedConfigurations

_NEIGHBOURS = 5
_NEAREST = 3


class RandomSearch(ScoringRecommender):
    """Uniformly drawn candidates."""

    def scores(self) -> np.ndarray:
        return np.zeros(len(self.candidates))


class PastTask:
    """The relative ranks of one past task's configurations, and between them their interpolation.

    A candidate gets the mean of the 5 nearest configurations' relative ranks, weighted by 1 / Euclidean distance: the
    very result where the configuration itself was measured, all but exactly.
    """

    def __init__(
        self, task: Task, candidates: EncodedConfigurations, indices: np.ndarray, performance: np.ndarray
    ) -> None:
        self.meta_feature = task.meta_feature
        self.width = candidates.vectors.shape[1]
        self._ranks = relative_rank(performance)
        self._tree = cKDTree(candidates.vectors[indices])

    def interpolate(self, candidates: EncodedConfigurations) -> np.ndarray:
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

    def start_task(self, task: Task, candidates: EncodedConfigurations) -> None:
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
    """The candidates that were best on the first task of their space."""

    def learn(self, indices: np.ndarray, performance: np.ndarray) -> None:
        if all(past.width != self.candidates.vectors.shape[1] for past in self.past):
            super().learn(indices, performance)


class NearestTasks(MeanRank):
    """kNN on meta-features: the mean rank over the 3 past tasks whose meta-features lie nearest.

    Tasks that are equally near count alike: all of them, where nothing is known of the task.
    """

    def weights(self, task: Task, past: list[PastTask]) -> np.ndarray:
        if not past:
            return np.zeros(0)
        distance = distances([*(p.meta_feature for p in past), task.meta_feature])[-1, :-1]
        return distance <= np.sort(distance)[:_NEAREST][-1]
