"""What has been learned about one search space from past tasks: features of configurations, and beliefs over h.

The features say which configurations are alike. They are learned from the tasks that are known whole, of which a
platform gains one only when it measures another data set of its own, and kept until then. What is learned from points
drawn at random is noisy, so there are several views of the past tasks, each with its own features, which are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nni_hyperfd.belief.belief import Belief
from nni_hyperfd.belief.distances import distances
from nni_hyperfd.belief.evidence import PastTask, evidence
from nni_hyperfd.belief.kernel import FeatureMap, Kernel
from nni_hyperfd.belief.scales import ScalePrior
from nni_hyperfd.belief.search import Search
from nni_hyperfd.belief.targets import normal_scores

_VIEWS = 3
_LANDMARKS = 120


@dataclass(frozen=True, eq=False)
class Features:
    """Features of configurations, and what they were learned from.

    Attributes:
        source: the tasks.
        maps: the features, one map for each view.
    """

    source: Sequence[PastTask]
    maps: Sequence[FeatureMap]

    @classmethod
    def learned(cls, tasks: Sequence[PastTask], pool: NDArray[np.float32], rng: np.random.Generator) -> Features:
        """Learn a kernel for each view, and draw landmarks.

        Args:
            tasks: those that are known whole, or all if none is; at least one.
            pool: (p, d), encoded configurations of the space, from which landmarks are drawn beside the tasks'.
            rng: of all draws.
        """
        inputs = [torch.from_numpy(task.inputs).double() for task in tasks]
        targets = [torch.from_numpy(normal_scores(task.performance)) for task in tasks]
        maps = []
        for _ in range(_VIEWS):
            kernel = Kernel.initial(pool.shape[1]).fitted(inputs, targets, rng)
            maps.append(FeatureMap.of(kernel, _landmarks(inputs, pool, rng)))
        return cls(tasks, maps)

    def still_hold(self, tasks: Sequence[PastTask]) -> bool:
        """Whether they would be learned from the same results."""
        return len(tasks) == len(self.source) and all(
            np.array_equal(one.inputs, other.inputs) and np.array_equal(one.performance, other.performance)
            for one, other in zip(tasks, self.source, strict=True)
        )


def _landmarks(inputs: Sequence[Tensor], pool: NDArray[np.float32], rng: np.random.Generator) -> Tensor:
    """Configurations (at most 120, d) that were tried and, where those are fewer, others of the space."""
    tried = torch.cat(list(inputs))
    chosen = tried[rng.permutation(len(tried))[:_LANDMARKS]]
    others = torch.from_numpy(pool[rng.permutation(len(pool))[: _LANDMARKS - len(chosen)]]).double()
    return torch.cat([chosen, others])


@dataclass(frozen=True, eq=False)
class BeliefModel:
    """What the default preset has learned about one search space.

    Attributes:
        width: numbers in an encoded configuration.
        tasks: the past tasks it was learned from.
        features: of configurations; None without past tasks.
        beliefs: over a new task's vector, one for each view; none without past tasks.
    """

    width: int
    tasks: Sequence[PastTask] = ()
    features: Features | None = None
    beliefs: Sequence[Belief] = ()

    @classmethod
    def learned(
        cls, tasks: Sequence[PastTask], pool: NDArray[np.float32], seed: int, before: BeliefModel | None = None
    ) -> BeliefModel:
        """Learn from past tasks.

        Args:
            tasks: all of the same search space. The cost grows with their number.
            pool: (p, d), encoded configurations of the space, at least one.
            seed: of everything random.
            before: an earlier model, whose features are kept if nothing has been added that they are learned from.
        """
        if not tasks:
            return cls(pool.shape[1])
        source = [task for task in tasks if task.whole] or tasks
        features = before.features if before is not None else None
        if features is None or not features.still_hold(source):
            features = Features.learned(source, pool, np.random.default_rng([seed, len(source)]))
        apart = distances([task.meta_feature for task in tasks])
        return cls(pool.shape[1], tasks, features, [_believed(tasks, view, apart) for view in features.maps])

    def search(self, inputs: NDArray[np.float32], meta_feature: NDArray[np.floating] | None) -> Search:
        """Start the search for a new task's best candidate, under the average of the views (eq. B11).

        Args:
            inputs: (n, d), encoded candidates.
            meta_feature: (m,), or None.
        """
        if self.features is None:
            return _first_search(inputs)
        apart = self._distances(meta_feature) if any(belief.trust for belief in self.beliefs) else None
        means, roots = [], []
        for view, belief in zip(self.features.maps, self.beliefs, strict=True):
            mean, root = belief.for_any_task
            if apart is not None:
                mean, root, _ = belief.for_task(apart[-1, :-1], apart[:-1, :-1])
            features = view.of_inputs(inputs)
            means.append(features @ mean)
            roots.append(features @ root)
        noise = float(np.mean([belief.noise for belief in self.beliefs]))
        scales = ScalePrior.average([belief.scales for belief in self.beliefs])
        return Search(np.mean(means, axis=0), np.hstack(roots) / len(roots) ** 0.5, noise, scales)

    def leaning(self, meta_feature: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the distance (tasks,) of a meta-feature (m,) to each past task's, and the tasks' weights (tasks,).

        A weight is that of the past task's deviation from the mean in a new task's prior (eq. B9), averaged over the
        views.
        """
        if not self.beliefs:
            return np.zeros(0), np.zeros(0)
        apart = self._distances(meta_feature)
        weights = [belief.for_task(apart[-1, :-1], apart[:-1, :-1])[2] for belief in self.beliefs]
        return apart[-1, :-1], np.mean(weights, axis=0)

    def _distances(self, meta_feature: NDArray[np.floating] | None) -> NDArray[np.float64]:
        """Distances (tasks + 1, tasks + 1), the new task last."""
        return distances([*(task.meta_feature for task in self.tasks), meta_feature])


def _believed(tasks: Sequence[PastTask], view: FeatureMap, apart: NDArray[np.float64]) -> Belief:
    """Learn the belief of one view; apart: (tasks, tasks), distances of the tasks' meta-features."""
    return Belief.learned(
        [evidence(task, view.of_inputs(task.inputs)) for task in tasks],
        amplitude=float(view.kernel.amplitude.exp()),
        noise=view.kernel.noise_variance,
        distances=apart,
    )


def _first_search(inputs: NDArray[np.float32]) -> Search:
    """Start the first search in a space: all candidates are alike, near ones more so.

    The first pick is any of those that are not further from the middle of the space than half of them: without
    results the most uncertain candidates are those in the corners, where few people's configurations would lie.
    """
    kernel = Kernel.initial(inputs.shape[1])
    root = FeatureMap.of(kernel, torch.from_numpy(inputs[:_LANDMARKS]).double()).of_inputs(inputs)
    squared = np.square(inputs - 0.5).sum(axis=1)
    outer = squared > np.median(squared) + 1e-6
    return Search(np.zeros(len(inputs)), root, kernel.noise_variance, None, first=-outer.astype(float))
