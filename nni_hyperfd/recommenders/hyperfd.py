"""HyperFD's better ranker: a learned belief over the data set's vector, updated after every result.

The score of a configuration keeps the paper's form, an inner product of its features and the data set's vector; the
vector is uncertain (`nni_hyperfd.ranker.belief`), the features are those of a learned kernel (`ranker.kernel`), and
the pick is the candidate with the highest expected improvement (`ranker.search`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from nni_hyperfd.ranker.belief import Belief
from nni_hyperfd.ranker.kernel import FeatureMap, Kernel
from nni_hyperfd.ranker.search import Scales, Search
from nni_hyperfd.recommenders.base import Candidates, Recommender, Task
from nni_hyperfd.recommenders.meta_features import distances
from nni_hyperfd.recommenders.targets import normal_scores

_LANDMARKS = 160
_TASKS = 32


@dataclass(eq=False)
class _Space:
    """What has been learned of one search space, known by the width of its encoded configurations."""

    kernel: Kernel
    inputs: list[torch.Tensor] = field(default_factory=list)
    targets: list[torch.Tensor] = field(default_factory=list)
    meta_features: list[np.ndarray | None] = field(default_factory=list)
    scales: Scales = field(default_factory=Scales)
    features: FeatureMap | None = None
    belief: Belief | None = None
    members: list[int] = field(default_factory=list)
    """The past tasks that the belief speaks of, as places in `inputs`."""


class HyperFD(Recommender):
    """The default recommender. One set of constants for hyper-parameters and architectures.

    Learning looks at up to 32 past tasks, the newest and others drawn at random, so its cost does not grow.
    """

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self._spaces: dict[int, _Space] = {}

    def start_task(self, task: Task, candidates: Candidates) -> None:
        width = candidates.vectors.shape[1]
        self.task, self.candidates = task, candidates
        self._space = self._spaces.setdefault(width, _Space(Kernel.initial(width)))
        self._asked: list[int] = []
        self._pending: list[int] = []
        self._search, self._weights = self._begun(torch.from_numpy(candidates.vectors).double())
        # Equal scores, as of equal candidates, are ordered at random.
        self._ties = self.rng.permutation(len(candidates))

    def ask(self, n: int = 1) -> list[int]:
        n = max(0, min(n, self.task.budget - len(self._asked), len(self.candidates) - len(self._asked)))
        for _ in range(n):
            scores = self._search.scores(self._pending)
            scores[self._asked] = -np.inf
            best = np.flatnonzero(scores == scores.max())
            pick = int(best[self._ties[best].argmin()])
            self._asked.append(pick)
            self._pending.append(pick)
        return self._asked[len(self._asked) - n :]

    def tell(self, index: int, performance: float) -> None:
        if index not in self._pending:
            raise ValueError(f"Candidate {index} is not waiting for a result; those that are: {self._pending}.")
        self._pending.remove(index)
        if math.isfinite(performance):
            self._search.observe(index, float(performance))

    def end_task(self, revealed: Mapping[int, float]) -> None:
        known = sorted((int(index), float(value)) for index, value in revealed.items() if math.isfinite(value))
        indices, performance = [index for index, _ in known], np.array([value for _, value in known])
        # Where all results are the same there is nothing to rank.
        if len(set(performance)) > 1:
            self._learn(torch.from_numpy(self.candidates.vectors[indices]).double(), performance)

    def expected(self) -> tuple[np.ndarray, np.ndarray]:
        """Score and its standard deviation for every candidate, (n,) each, given the results so far: in normal scores,
        so 0 is the middle of the configurations and 1 better than 84 % of them."""
        return self._search.expected()

    def leaning(self) -> dict[int, float]:
        """By how much the belief leans on past tasks for this one's meta-feature: place in the order of the learned
        tasks of this space -> weight, the highest first."""
        members = self._space.members
        order = np.argsort(-self._weights, kind="stable")
        return {members[i]: float(self._weights[i]) for i in order}

    def _begun(self, inputs: torch.Tensor) -> tuple[Search, np.ndarray]:
        space = self._space
        if space.belief is None:  # nothing is known: all candidates are alike, near ones more so
            features = FeatureMap.of(space.kernel, inputs[:_LANDMARKS])
            root = features(inputs).numpy()
            return Search(np.zeros(len(inputs)), root, space.kernel.noise_variance, space.scales), np.zeros(0)
        apart = distances([*(space.meta_features[t] for t in space.members), self.task.meta_feature])
        mean, root, weights = space.belief.for_task(apart[-1, :-1], apart[:-1, :-1])
        features = space.features(inputs)
        search = Search((features @ mean).numpy(), (features @ root).numpy(), space.belief.noise, space.scales)
        return search, weights

    def _learn(self, inputs: torch.Tensor, performance: np.ndarray) -> None:
        space = self._space
        targets = normal_scores(performance)
        space.scales.add(performance, targets)
        space.inputs.append(inputs)
        space.targets.append(torch.from_numpy(targets))
        space.meta_features.append(self.task.meta_feature)

        earlier = len(space.targets) - 1
        space.members = sorted([*self.rng.permutation(earlier)[: _TASKS - 1].tolist(), earlier])
        members_inputs = [space.inputs[t] for t in space.members]
        members_targets = [space.targets[t] for t in space.members]
        space.kernel = space.kernel.fitted(members_inputs, members_targets, self.rng)
        seen = torch.cat(members_inputs)
        space.features = FeatureMap.of(space.kernel, seen[self.rng.permutation(len(seen))[:_LANDMARKS]])
        space.belief = Belief.learned(
            [space.features(x) for x in members_inputs],
            members_targets,
            amplitude=float(space.kernel.amplitude.exp()),
            noise=space.kernel.noise_variance,
            distances=distances([space.meta_features[t] for t in space.members]),
            rng=self.rng,
        )
