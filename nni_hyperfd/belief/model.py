"""What has been learned about one search space from past tasks: several views, and the scale of a task's results.

A view is a learned kernel, its features and a belief over a new task's vector. It is learned from points drawn at
random, which makes it noisy; several views of fewer points each are averaged (eq. B11, docs/method.md).
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
from nni_hyperfd.belief.kernel import FeatureMap, Kernel
from nni_hyperfd.belief.search import Scales, Search
from nni_hyperfd.belief.targets import normal_scores

_VIEWS = 3
_LANDMARKS = 120


@dataclass(frozen=True, eq=False)
class PastTask:
    """The known results of a past task.

    Attributes:
        inputs: float32 (n, d), encoded configurations.
        performance: (n,), finite, at least two different ones, higher is better.
        meta_feature: (m,), or None; an entry that is not finite is unknown.
    """

    inputs: NDArray[np.float32]
    performance: NDArray[np.float64]
    meta_feature: NDArray[np.floating] | None = None


@dataclass(frozen=True, eq=False)
class View:
    """One view of the past tasks.

    Attributes:
        features: of configurations.
        belief: over a new task's vector of these features.
    """

    features: FeatureMap
    belief: Belief

    @classmethod
    def learned(
        cls, inputs: Sequence[Tensor], targets: Sequence[Tensor], apart: NDArray[np.float64], rng: np.random.Generator
    ) -> View:
        """Learn kernel, features and belief.

        Args:
            inputs: float64 (n_t, d) for each task, encoded configurations.
            targets: float64 (n_t,) for each task (eq. B1).
            apart: (tasks, tasks), distances of the tasks' meta-features (eq. B2).
            rng: of the points that the view is learned from.
        """
        kernel = Kernel.initial(inputs[0].shape[1]).fitted(inputs, targets, rng)
        seen = torch.cat(list(inputs))
        features = FeatureMap.of(kernel, seen[rng.permutation(len(seen))[:_LANDMARKS]])
        belief = Belief.learned(
            [features(x) for x in inputs],
            targets,
            amplitude=float(kernel.amplitude.exp()),
            noise=kernel.noise_variance,
            distances=apart,
            rng=rng,
        )
        return cls(features, belief)


@dataclass(frozen=True, eq=False)
class BeliefModel:
    """What the default preset has learned about one search space.

    Attributes:
        width: numbers in an encoded configuration.
        scales: the prior of a new task's scale.
        tasks: the past tasks it was learned from.
        views: of these tasks; none where there is no past task.
    """

    width: int
    scales: Scales
    tasks: Sequence[PastTask] = ()
    views: Sequence[View] = ()

    @classmethod
    def learned(cls, tasks: Sequence[PastTask], width: int, rng: np.random.Generator) -> BeliefModel:
        """Learn from past tasks.

        Args:
            tasks: all of the same search space. The cost grows with their number; `method.settings.MOST_TASKS` is a
                good limit.
            width: numbers in an encoded configuration of the space.
            rng: of the points that the views are learned from.
        """
        scales = Scales()
        if not tasks:
            return cls(width, scales)
        scores = [normal_scores(task.performance) for task in tasks]
        for task, score in zip(tasks, scores, strict=True):
            scales.add(task.performance, score)
        inputs = [torch.from_numpy(task.inputs).double() for task in tasks]
        targets = [torch.from_numpy(score) for score in scores]
        apart = distances([task.meta_feature for task in tasks])
        return cls(width, scales, tasks, [View.learned(inputs, targets, apart, rng) for _ in range(_VIEWS)])

    def search(self, inputs: NDArray[np.float32], meta_feature: NDArray[np.floating] | None) -> Search:
        """Start the search for a new task's best candidate, under the average of the views (eq. B11).

        Args:
            inputs: (n, d), encoded candidates.
            meta_feature: (m,), or None.
        """
        candidates = torch.from_numpy(inputs).double()
        if not self.views:  # nothing is known: all candidates are alike, near ones more so
            kernel = Kernel.initial(self.width)
            prior = FeatureMap.of(kernel, candidates[:_LANDMARKS])(candidates).numpy()
            return Search(np.zeros(len(inputs)), prior, kernel.noise_variance, self.scales)
        apart = self._distances(meta_feature)
        means, roots = [], []
        for view in self.views:
            mean, root, _ = view.belief.for_task(apart[-1, :-1], apart[:-1, :-1])
            features = view.features(candidates)
            means.append((features @ mean).numpy())
            roots.append((features @ root).numpy())
        noise = float(np.mean([view.belief.noise for view in self.views]))
        return Search(np.mean(means, axis=0), np.hstack(roots) / len(roots) ** 0.5, noise, self.scales)

    def leaning(self, meta_feature: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the distance (tasks,) of a meta-feature (m,) to each past task's, and the tasks' weights (tasks,).

        A weight is that of the past task's deviation from the mean in a new task's prior (eq. B9), averaged over the
        views.
        """
        if not self.views:
            return np.zeros(0), np.zeros(0)
        apart = self._distances(meta_feature)
        weights = [view.belief.for_task(apart[-1, :-1], apart[:-1, :-1])[2] for view in self.views]
        return apart[-1, :-1], np.mean(weights, axis=0)

    def _distances(self, meta_feature: NDArray[np.floating] | None) -> NDArray[np.float64]:
        """Distances (tasks + 1, tasks + 1), the new task last."""
        return distances([*(task.meta_feature for task in self.tasks), meta_feature])
