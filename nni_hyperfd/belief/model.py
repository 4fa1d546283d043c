"""What has been learned of one search space from past tasks: views of it, and how far apart a task's results lie.

A view is a learned kernel, its features and a belief over a new task's vector. It comes from points drawn at random,
and what the draw decides is noise: several views are learned from fewer points each, and averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
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
    """What a task has revealed.

    inputs: float (n, d), encoded configurations. performance: (n,), at least two different ones, higher is better.
    meta_feature: (m,), or None; an entry that is not finite is unknown.
    """

    inputs: np.ndarray
    performance: np.ndarray
    meta_feature: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class View:
    """One way to see the past tasks: features of configurations, and the belief over a new task's vector of these."""

    features: FeatureMap
    belief: Belief

    @classmethod
    def learned(
        cls, inputs: Sequence[Tensor], targets: Sequence[Tensor], apart: np.ndarray, rng: np.random.Generator
    ) -> View:
        """inputs: float64 (n_t, d) per task; targets: (n_t,). apart: (tasks, tasks), distances of meta-features."""
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
class Model:
    """Learned from `tasks`; without any there are no `views`. width: numbers in an encoded configuration."""

    width: int
    scales: Scales
    tasks: Sequence[PastTask] = ()
    views: Sequence[View] = ()

    @classmethod
    def learned(cls, tasks: Sequence[PastTask], width: int, rng: np.random.Generator) -> Model:
        """From the past tasks of a space whose encoded configurations have `width` numbers; cost grows with `tasks`,
        so `settings.MOST_TASKS` are a good limit."""
        scales = Scales()
        if not tasks:
            return cls(width, scales)
        targets = [normal_scores(task.performance) for task in tasks]
        for task, target in zip(tasks, targets, strict=True):
            scales.add(task.performance, target)
        inputs = [torch.from_numpy(task.inputs).double() for task in tasks]
        targets = [torch.from_numpy(target) for target in targets]
        apart = distances([task.meta_feature for task in tasks])
        return cls(width, scales, tasks, [View.learned(inputs, targets, apart, rng) for _ in range(_VIEWS)])

    def search(self, inputs: np.ndarray, meta_feature: np.ndarray | None) -> Search:
        """The search for a new task's best candidate, under the mean of the views' means and of their covariances.

        inputs: (n, d), encoded candidates. meta_feature: (m,) or None.
        """
        candidates = torch.from_numpy(inputs).double()
        if not self.views:  # nothing is known: all candidates are alike, near ones more so
            kernel = Kernel.initial(self.width)
            root = FeatureMap.of(kernel, candidates[:_LANDMARKS])(candidates).numpy()
            return Search(np.zeros(len(inputs)), root, kernel.noise_variance, self.scales)
        apart = self._distances(meta_feature)
        means, roots = [], []
        for view in self.views:
            mean, root, _ = view.belief.for_task(apart[-1, :-1], apart[:-1, :-1])
            features = view.features(candidates)
            means.append((features @ mean).numpy())
            roots.append((features @ root).numpy())
        noise = float(np.mean([view.belief.noise for view in self.views]))
        return Search(np.mean(means, axis=0), np.hstack(roots) / len(roots) ** 0.5, noise, self.scales)

    def leaning(self, meta_feature: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far a meta-feature (m,) lies from each past task's, and by how much the views on average lean on the
        task for it: (tasks,) each."""
        if not self.views:
            return np.zeros(0), np.zeros(0)
        apart = self._distances(meta_feature)
        weights = [view.belief.for_task(apart[-1, :-1], apart[:-1, :-1])[2] for view in self.views]
        return apart[-1, :-1], np.mean(weights, axis=0)

    def _distances(self, meta_feature: np.ndarray | None) -> np.ndarray:
        """(tasks + 1, tasks + 1), the new task last."""
        return distances([*(task.meta_feature for task in self.tasks), meta_feature])
