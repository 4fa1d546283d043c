"""What has been learned about one search space from past tasks: features of configurations, and beliefs over h.

The features say which configurations are alike. They are learned from the tasks that are known whole, of which a
platform gains one only when it measures another data set of its own, and kept until then. What is learned from points
drawn at random is noisy, so there are several views of the past tasks, each with its own features, which are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nni_hyperfd.belief.belief import Belief
from nni_hyperfd.belief.distances import MetaFeatures
from nni_hyperfd.belief.evidence import PastTask, evidence
from nni_hyperfd.belief.kernel import FeatureMap, Kernel
from nni_hyperfd.belief.scales import ScalePrior
from nni_hyperfd.belief.search import Covariance, Search
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
    _kept: list[_Candidates] = field(default_factory=list, init=False, repr=False)

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
        apart = MetaFeatures.of([task.meta_feature for task in tasks]).between
        return cls(pool.shape[1], tasks, features, [_believed(tasks, view, apart) for view in features.maps])

    def search(self, inputs: NDArray[np.float32], meta_feature: NDArray[np.floating] | None) -> Search:
        """Start the search for a new task's best candidate, under the average of the views (eq. B11).

        Args:
            inputs: (n, d), encoded candidates.
            meta_feature: (m,), or None.
        """
        if self.features is None:
            return _first_search(inputs)
        noise = float(np.mean([belief.noise for belief in self.beliefs]))
        scales = ScalePrior.average([belief.scales for belief in self.beliefs])
        candidates, leanings = self._candidates(inputs), self._leanings(meta_feature)
        vectors = [
            belief.mean + weights @ (belief.vectors - belief.mean)
            for belief, (weights, _) in zip(self.beliefs, leanings, strict=True)
        ]
        mean = candidates.features @ np.concatenate(vectors) / len(vectors)
        return Search(mean, candidates.covariance([left for _, left in leanings]), noise, scales)

    def leaning(self, meta_feature: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the distance (tasks,) of a meta-feature (m,) to each past task's, and the tasks' weights (tasks,).

        A weight is that of the past task's deviation from the mean in a new task's prior (eq. B9), averaged over the
        views.
        """
        if not self.beliefs:
            return np.zeros(0), np.zeros(0)
        return self._described.to(meta_feature), np.mean([each for each, _ in self._leanings(meta_feature)], axis=0)

    def _leanings(self, meta_feature: NDArray[np.floating] | None) -> list[tuple[NDArray[np.float64], float]]:
        """What each view makes of a meta-feature (eq. B9)."""
        apart = self._described.to(meta_feature)
        return [belief.leaning(apart) for belief in self.beliefs]

    @cached_property
    def _described(self) -> MetaFeatures:
        """The past tasks' meta-features."""
        return MetaFeatures.of([task.meta_feature for task in self.tasks])

    def _candidates(self, inputs: NDArray[np.float32]) -> _Candidates:
        """What is believed of candidates (n, d) whichever the task; kept, for the next pick is often among the same."""
        kept = self._kept[0] if self._kept else None  # read once: on a server, several threads ask
        if kept is None or not np.array_equal(kept.inputs, inputs):
            assert self.features is not None
            features = [view.of_inputs(inputs) for view in self.features.maps]
            kept = _Candidates.of(inputs, features, self.beliefs)
            self._kept[:] = [kept]
        return kept


@dataclass(frozen=True, eq=False)
class _Candidates:
    """What is believed of candidates whichever the task, the views side by side, K features in all.

    Attributes:
        inputs: float32 (n, d).
        features: (n, K).
        shared, doubted: (n, K), each view's features times S and times the doubt of m, divided by the number of views.
        shared_variance, doubted_variance: (n, views), what each view adds to the variance by these.
        widths: features of each view.
    """

    inputs: NDArray[np.float32]
    features: NDArray[np.float64]
    shared: NDArray[np.float64]
    doubted: NDArray[np.float64]
    shared_variance: NDArray[np.float64]
    doubted_variance: NDArray[np.float64]
    widths: Sequence[int]

    @classmethod
    def of(
        cls, inputs: NDArray[np.float32], features: Sequence[NDArray[np.float64]], beliefs: Sequence[Belief]
    ) -> _Candidates:
        """Put the views side by side; features: (n, k) of each view."""
        views = list(zip(features, beliefs, strict=True))
        shared = [rows @ belief.covariance / len(views) for rows, belief in views]
        doubted = [rows @ belief.doubt / len(views) for rows, belief in views]
        return cls(
            inputs,
            np.hstack(features),
            np.hstack(shared),
            np.hstack(doubted),
            _diagonals(features, shared),
            _diagonals(features, doubted),
            [rows.shape[1] for rows in features],
        )

    def covariance(self, left: Sequence[float]) -> Covariance:
        """The average covariance of the targets (eq. B11), given the share of S that is left in each view (eq. B9)."""
        columns = partial(self._columns, np.repeat(left, self.widths))
        return Covariance(self.shared_variance @ left + self.doubted_variance.sum(axis=1), columns)

    def _columns(self, shares: NDArray[np.float64], indices: list[int]) -> NDArray[np.float64]:
        """Columns (n, len(indices)) of the average covariance, given the share (K,) of S that is left."""
        columns: NDArray[np.float64] = self.features @ (self.shared[indices] * shares + self.doubted[indices]).T
        return columns


def _diagonals(left: Sequence[NDArray[np.float64]], right: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The diagonals (n, views) of each left @ right.T, of matrices (n, k)."""
    return np.stack([np.einsum("ij,ij->i", *pair) for pair in zip(left, right, strict=True)], axis=1)


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

    The first two picks are of those that are not further from the middle of the space than half of them. The most
    uncertain candidates are those in the corners, where few people's configurations would lie, and until two results
    can be compared there is nothing else to go by. For the same reason all candidates are equally uncertain.
    """
    kernel = Kernel.initial(inputs.shape[1])
    root = FeatureMap.of(kernel, torch.from_numpy(inputs[:_LANDMARKS]).double()).of_inputs(inputs)
    root /= np.linalg.norm(root, axis=1, keepdims=True)
    squared = np.square(inputs - 0.5).sum(axis=1)
    outer: NDArray[np.bool_] = squared > np.median(squared) + 1e-6
    return Search(np.zeros(len(inputs)), Covariance.product(root, root), kernel.noise_variance, None, outer)
