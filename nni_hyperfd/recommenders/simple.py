"""Recommenders that learn nothing but which configurations ranked high on past tasks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from nni_hyperfd.belief.distances import distances
from nni_hyperfd.belief.targets import relative_rank
from nni_hyperfd.recommenders.base import ScoringRecommender, Task
from nni_hyperfd.space import EncodedConfigurations

_NEIGHBOURS = 5
"""Number of configurations that a relative rank is interpolated from."""
_NEAREST = 3
"""Number of past tasks that `NearestTasks` looks at."""


class RandomSearch(ScoringRecommender):
    """Draws candidates uniformly."""

    def scores(self) -> NDArray[np.float64]:
        """The same score for all candidates (n,)."""
        return np.zeros(len(self.candidates))


class RankedTask:
    """Relative ranks of one past task's configurations, interpolated between them.

    Args:
        task: what is known of the data set.
        candidates: configurations of the task.
        indices: (k,), those of the candidates that have a result.
        performance: (k,), their results, finite, higher is better.

    Attributes:
        meta_feature: that of the task.
        width: length of an encoded configuration.
    """

    def __init__(
        self,
        task: Task,
        candidates: EncodedConfigurations,
        indices: NDArray[np.int64],
        performance: NDArray[np.float64],
    ) -> None:
        self.meta_feature = task.meta_feature
        self.width = candidates.width
        self._ranks = relative_rank(performance)
        self._tree = cKDTree(candidates.vectors[indices])

    def interpolate(self, candidates: EncodedConfigurations) -> NDArray[np.float64]:
        """Relative ranks of other configurations.

        A candidate gets the mean of the 5 nearest configurations' relative ranks, weighted by 1 / Euclidean distance:
        almost exactly the measured one where the configuration itself was measured.

        Returns:
            (n,), in (0, 1), higher is better.
        """
        k = min(_NEIGHBOURS, len(self._ranks))
        distance, index = self._tree.query(candidates.vectors, k=np.arange(1, k + 1))
        weight = 1 / (distance + 1e-3)
        ranks: NDArray[np.float64] = (weight * self._ranks[index]).sum(axis=1) / weight.sum(axis=1)
        return ranks


class MeanRank(ScoringRecommender):
    """Scores a configuration by the mean of its (interpolated) relative ranks on past tasks.

    Attributes:
        past: the past tasks, the oldest first.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.past: list[RankedTask] = []

    def start_task(self, task: Task, candidates: EncodedConfigurations) -> None:
        """Score the candidates, by the past tasks of the same search space."""
        super().start_task(task, candidates)
        usable = [past for past in self.past if past.width == candidates.width]
        weights = self.weights(task, usable)
        ranks = [w * past.interpolate(candidates) for w, past in zip(weights, usable, strict=True) if w > 0]
        self._scores: NDArray[np.float64] = np.sum([np.zeros(len(candidates)), *ranks], axis=0)

    def scores(self) -> NDArray[np.float64]:
        """The sum of the relative ranks of each candidate (n,)."""
        return self._scores

    def learn(self, indices: NDArray[np.int64], performance: NDArray[np.float64]) -> None:
        """Keep the task's results."""
        self.past.append(RankedTask(self.task, self.candidates, indices, performance))

    def weights(self, task: Task, past: Sequence[RankedTask]) -> NDArray[np.float64]:
        """Weights (t,) of t past tasks, at least 0."""
        return np.ones(len(past))


class BestOnSource(MeanRank):
    """Proposes the candidates that were best on the first task of their space."""

    def learn(self, indices: NDArray[np.int64], performance: NDArray[np.float64]) -> None:
        """Keep the results of the space's first task."""
        if all(past.width != self.candidates.width for past in self.past):
            super().learn(indices, performance)


class NearestTasks(MeanRank):
    """kNN on meta-features: the mean rank over the 3 past tasks whose meta-features are nearest.

    Tasks that are equally near count alike: all of them, where nothing is known of the task.
    """

    def weights(self, task: Task, past: Sequence[RankedTask]) -> NDArray[np.float64]:
        """1 for each of the nearest past tasks, 0 for the others (t,)."""
        if not past:
            return np.zeros(0)
        distance = distances([*(p.meta_feature for p in past), task.meta_feature])[-1, :-1]
        weights: NDArray[np.float64] = (distance <= np.sort(distance)[:_NEAREST][-1]).astype(float)
        return weights
