"""Which configurations a task tries next: one class per preset.

Everything is read before anything is computed, so nobody waits for a ranking. torch is imported by the methods that
rank, not by this module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.method.drawing import tasks_to_believe
from nni_hyperfd.platform import planning
from nni_hyperfd.platform.past import past_tasks
from nni_hyperfd.space import Configuration, SearchSpace
from nni_hyperfd.state import experience
from nni_hyperfd.state.store import Store
from nni_hyperfd.state.versions import Versions
from nni_hyperfd.state.views import TaskView
from nni_hyperfd.task import Status

if TYPE_CHECKING:
    from nni_hyperfd.belief.model import BeliefModel
    from nni_hyperfd.platform.learning import Learning
    from nni_hyperfd.recommenders.hyperfd import HyperFD


@dataclass(frozen=True)
class Recommendation:
    """A configuration among a task's candidates.

    Attributes:
        configuration: the configuration.
        rank: its place among the candidates, from 1 for the best.
        score: with the default preset what is expected of it, in normal scores (0: the middle of the configurations,
            1: better than 84 % of them); with the paper's preset the inner product of eq. 1.
        deviation: the standard deviation of that expectation (default preset only).
    """

    configuration: Configuration
    rank: int
    score: float
    deviation: float | None = None


@dataclass(frozen=True)
class Neighbour:
    """A past task beside the ranked one.

    Attributes:
        task_id: of the past task.
        distance: of their meta-features.
        weight: by how much the ranking leans on it for that (default preset only).
    """

    task_id: int
    distance: float
    weight: float | None = None


@dataclass(frozen=True)
class Ranking:
    """All candidates of a task.

    Attributes:
        recommendations: from best to worst.
        neighbours: past tasks from near to far; none without a meta-feature.
    """

    recommendations: list[Recommendation]
    neighbours: list[Neighbour]


class Preset(ABC):
    """How candidates are ranked by what the state holds."""

    @abstractmethod
    def prepare(self, task: TaskView) -> None:
        """Do now, while no trial waits for it, what ranking needs."""

    @abstractmethod
    def rank(self, task: TaskView, candidates: Sequence[Configuration]) -> Ranking:
        """All candidates and all that they are ranked by."""

    @abstractmethod
    def pick(self, task: TaskView, candidates: Sequence[Configuration], left: int) -> list[Recommendation]:
        """One or more of the candidates to try next, at most as many as are `left` in the budget."""


class PaperPreset(Preset):
    """The paper's recipe, step by step as `recommenders.paper` does it.

    Eq. 1 ranks once; the better part of the budget is the top of the ranking, the rest is drawn (Appendix A).
    """

    def __init__(self, store: Store, versions: Versions, learning: Learning) -> None:
        self._store, self._versions, self._learning = store, versions, learning

    def prepare(self, task: TaskView) -> None:
        """Load the encoder, or learn it where an earlier format had another one."""
        self._learning.encoder(task.space)

    def rank(self, task: TaskView, candidates: Sequence[Configuration]) -> Ranking:
        """All candidates by eq. 1."""
        scores, neighbours = self._scores(task, candidates)
        return Ranking(_from_best_to_worst(candidates, scores), neighbours)

    def pick(self, task: TaskView, candidates: Sequence[Configuration], left: int) -> list[Recommendation]:
        """All picks at once."""
        import torch

        from nni_hyperfd.method import recipe

        scores, _ = self._scores(task, candidates)
        settings = task.settings
        chosen = recipe.picks(torch.from_numpy(scores), left, settings.exploration, settings.seed, task.id)
        ranked = {id(r.configuration): r for r in _from_best_to_worst(candidates, scores)}
        return [ranked[id(candidates[index])] for index in chosen]

    def _scores(
        self, task: TaskView, candidates: Sequence[Configuration]
    ) -> tuple[NDArray[np.float64], list[Neighbour]]:
        import torch

        from nni_hyperfd.method import recipe
        from nni_hyperfd.method.scoring import score

        version = self._learning.encoder(task.space)
        past = past_tasks(self._store, task.space, recipe.task_rng(task.settings.seed, task.id), without=task.id)
        known = self._versions.carried([*past, task], version.extractor_id)
        h = known.pop(task.id, None)
        neighbours = []
        if h is None:
            h = recipe.unknown_meta_feature(known.values())
        else:
            distances = {other: float(torch.linalg.vector_norm(theirs - h)) for other, theirs in known.items()}
            neighbours = sorted((Neighbour(*item) for item in distances.items()), key=lambda other: other.distance)
        with torch.no_grad():
            scores = score(version.encoder(task.space.encode(candidates)), h)
        return scores.double().numpy(), neighbours


@dataclass(frozen=True, eq=False)
class Learned:
    """What the closed tasks of a space taught.

    Attributes:
        source: changes when there is more to learn from.
        task_ids: the tasks that `model` was learned from.
        extractor_id: the version that their meta-features were carried over to.
        model: what was learned.
        for_task: the only task that it serves, whose candidates stand for the space where no past task is known whole;
            None if it serves all.
    """

    source: tuple[Any, ...]
    task_ids: list[int]
    extractor_id: int
    model: BeliefModel
    for_task: int | None = None


class DefaultPreset(Preset):
    """A belief over the data set's vector (`nni_hyperfd.recommenders.hyperfd`).

    Every pick is the best one given all results so far, with those that still run at their expected value.
    """

    def __init__(self, store: Store, versions: Versions) -> None:
        self._store, self._versions = store, versions
        self.learned: dict[str, Learned] = {}
        """By a space's signature."""

    def prepare(self, task: TaskView) -> None:
        """Learn from the closed tasks."""
        self._learn(task)

    def rank(self, task: TaskView, candidates: Sequence[Configuration]) -> Ranking:
        """All candidates by what is expected of them."""
        learned, meta_feature = self._known(task)
        expected, deviation = self._recommender(task, candidates, 0).search.expected()
        recommendations = _from_best_to_worst(candidates, expected[: len(candidates)], deviation)
        if meta_feature is None:
            return Ranking(recommendations, [])
        distances, weights = learned.model.leaning(meta_feature)
        neighbours = [
            Neighbour(task_id, float(distance), float(weight))
            for task_id, past, distance, weight in zip(
                learned.task_ids, learned.model.tasks, distances, weights, strict=True
            )
            if past.meta_feature is not None
        ]
        return Ranking(recommendations, sorted(neighbours, key=lambda other: other.distance))

    def pick(self, task: TaskView, candidates: Sequence[Configuration], left: int) -> list[Recommendation]:
        """The one pick that all results so far speak for."""
        recommender = self._recommender(task, candidates, left)
        expected, deviation = recommender.search.expected()
        (index,) = recommender.ask(1)
        rank = 1 + int((expected[: len(candidates)] > expected[index]).sum())
        return [Recommendation(candidates[index], rank, float(expected[index]), float(deviation[index]))]

    def _learn(self, task: TaskView) -> Learned:
        """Learn from the closed tasks of a space, unless that is done already."""
        seed, space, extractor_id = task.settings.seed, task.space, self._versions.head_id()
        with self._store.read() as session:
            source = (seed, extractor_id, experience.count_closed(session, space))
        known = self.learned.get(space.signature)
        if known is not None and known.source == source and known.for_task in (None, task.id):
            return known
        pool = planning.candidates(space, task.settings, task.id, task.settings.candidates)
        learned = self._learned(space, seed, pool, source, None if known is None else known.model)
        if not any(other.whole for other in learned.model.tasks):
            learned = replace(learned, for_task=task.id)
        self.learned[space.signature] = learned
        return learned

    def _learned(
        self,
        space: SearchSpace,
        seed: int,
        pool: Sequence[Configuration],
        source: tuple[Any, ...],
        before: BeliefModel | None,
    ) -> Learned:
        """Learn from the closed tasks of a space; the pool stands for it where no past task is known whole.

        Args:
            space: the search space.
            seed: of everything random.
            pool: configurations of the space.
            source: what the result is known by; its second part is the version of the extractor.
            before: an earlier model, whose features may still hold.
        """
        from nni_hyperfd.belief.evidence import PastTask
        from nni_hyperfd.belief.model import BeliefModel

        extractor_id: int = source[1]
        with self._store.read() as session:
            clients, offline = experience.closed_ids(session, space)
            tasks = experience.tasks(session, tasks_to_believe(offline, clients, seed))
        meta_features = self._versions.carried(tasks, extractor_id)
        past = []
        for other in tasks:
            results = other.results
            h = meta_features[other.id].numpy() if other.id in meta_features else None
            inputs = space.encode(results.configurations).vectors
            sampled = other.id in offline or 2 * len(inputs) >= space.size
            past.append(PastTask(inputs, np.array(results.performance), h, sampled))
        kept = before if any(other.whole for other in past) else None
        model = BeliefModel.learned(past, space.encode(pool).vectors, seed, kept)
        return Learned(source, [other.id for other in tasks], extractor_id, model)

    def _known(self, task: TaskView) -> tuple[Learned, NDArray[np.float32] | None]:
        """What was learned, and the task's meta-feature (64,) in the same version of the extractor."""
        learned = self._learn(task)
        carried = self._versions.carried([task], learned.extractor_id).get(task.id)
        return learned, None if carried is None else carried.numpy()

    def _recommender(self, task: TaskView, candidates: Sequence[Configuration], left: int) -> HyperFD:
        """A recommender that stands where the task stands; its candidates are the given ones, then the tried ones."""
        from nni_hyperfd.recommenders.base import Task
        from nni_hyperfd.recommenders.hyperfd import HyperFD

        learned, meta_feature = self._known(task)
        tried = [trial for trial in task.trials if trial.tries and trial.status is not Status.FAILED]
        recommender = HyperFD(task.settings.seed, learned.model)
        configurations = [*candidates, *(trial.configuration for trial in tried)]
        recommender.start_task(Task(len(tried) + left, meta_feature), task.space.encode(configurations))
        for index, trial in enumerate(tried, start=len(candidates)):
            recommender.take(index)
            if trial.performance is not None:
                recommender.tell(index, task.settings.sign * trial.performance)
        return recommender


def _from_best_to_worst(
    candidates: Sequence[Configuration], scores: NDArray[np.float64], deviations: NDArray[np.float64] | None = None
) -> list[Recommendation]:
    """Recommendations by score.

    Candidates come in seeded random order and the sort is stable, so ties are broken at random.
    """
    order = np.argsort(-scores, kind="stable")
    return [
        Recommendation(candidates[i], rank, float(scores[i]), None if deviations is None else float(deviations[i]))
        for rank, i in enumerate(order, start=1)
    ]
