"""What has been learned of one search space from past tasks: features, a belief over a new task's vector, its scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nni_hyperfd.ranker.belief import Belief
from nni_hyperfd.ranker.distances import distances
from nni_hyperfd.ranker.kernel import FeatureMap, Kernel
from nni_hyperfd.ranker.search import Scales, Search
from nni_hyperfd.ranker.targets import normal_scores

_LANDMARKS = 160


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
class Model:
    """Learned from `tasks`; `features` and `belief` are None while there are none."""

    kernel: Kernel
    scales: Scales
    tasks: Sequence[PastTask] = ()
    features: FeatureMap | None = None
    belief: Belief | None = None

    @property
    def width(self) -> int:
        """Numbers in an encoded configuration."""
        return len(self.kernel.scales)

    @classmethod
    def learned(cls, tasks: Sequence[PastTask], width: int, rng: np.random.Generator) -> Model:
        """From the past tasks of a space whose encoded configurations have `width` numbers; cost grows with `tasks`,
        so `settings.MOST_TASKS` are a good limit."""
        kernel, scales = Kernel.initial(width), Scales()
        if not tasks:
            return cls(kernel, scales)
        targets = [normal_scores(task.performance) for task in tasks]
        for task, target in zip(tasks, targets, strict=True):
            scales.add(task.performance, target)
        inputs = [torch.from_numpy(task.inputs).double() for task in tasks]
        targets = [torch.from_numpy(target) for target in targets]
        kernel = kernel.fitted(inputs, targets, rng)
        seen = torch.cat(inputs)
        features = FeatureMap.of(kernel, seen[rng.permutation(len(seen))[:_LANDMARKS]])
        belief = Belief.learned(
            [features(x) for x in inputs],
            targets,
            amplitude=float(kernel.amplitude.exp()),
            noise=kernel.noise_variance,
            distances=distances([task.meta_feature for task in tasks]),
            rng=rng,
        )
        return cls(kernel, scales, tasks, features, belief)

    def search(self, inputs: np.ndarray, meta_feature: np.ndarray | None) -> Search:
        """The search for a new task's best candidate.

        inputs: (n, d), encoded candidates. meta_feature: (m,) or None.
        """
        candidates = torch.from_numpy(inputs).double()
        if self.belief is None:  # nothing is known: all candidates are alike, near ones more so
            root = FeatureMap.of(self.kernel, candidates[:_LANDMARKS])(candidates).numpy()
            return Search(np.zeros(len(inputs)), root, self.kernel.noise_variance, self.scales)
        apart = self._distances(meta_feature)
        mean, root, _ = self.belief.for_task(apart[-1, :-1], apart[:-1, :-1])
        features = self.features(candidates)
        return Search((features @ mean).numpy(), (features @ root).numpy(), self.belief.noise, self.scales)

    def leaning(self, meta_feature: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far a meta-feature (m,) lies from each past task's, and by how much the belief leans on the task for it:
        (tasks,) each."""
        if self.belief is None:
            return np.zeros(0), np.zeros(0)
        apart = self._distances(meta_feature)
        return apart[-1, :-1], self.belief.for_task(apart[-1, :-1], apart[:-1, :-1])[2]

    def _distances(self, meta_feature: np.ndarray | None) -> np.ndarray:
        """(tasks + 1, tasks + 1), the new task last."""
        return distances([*(task.meta_feature for task in self.tasks), meta_feature])
