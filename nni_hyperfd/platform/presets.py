"""Which configurations a task tries next: one class per preset.

torch is imported by the methods that rank, not by this module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy.orm import Session

from nni_hyperfd.space.search_space import Configuration, SearchSpace
from nni_hyperfd.state import experience
from nni_hyperfd.state.store import Task
from nni_hyperfd.state.versions import Versions, unknown_meta_feature
from nni_hyperfd.task import FINE_TUNE, IMPORT

if TYPE_CHECKING:
    from nni_hyperfd.belief.model import BeliefModel
    from nni_hyperfd.recommenders.hyperfd import HyperFD


@dataclass(frozen=True)
class Recommendation:
    """A configuration with its place among the candidates (1 = best) and its score.

    With the default preset the score is what is expected of the configuration, in normal scores (0: the middle of the
    configurations, 1: better than 84 % of them), and `deviation` how sure that is; with the paper's preset it is the
    inner product of equation 1, and there is no deviation.
    """

    configuration: Configuration
    rank: int
    score: float
    deviation: float | None = None


@dataclass(frozen=True)
class Neighbour:
    """A past task: how far its meta-feature lies from the ranked task's, and by how much the ranking leans on it for
    that (default preset only)."""

    task_id: int
    distance: float
    weight: float | None = None


@dataclass(frozen=True)
class Ranking:
    """The candidates of a task from best to worst, and the past tasks from near to far; none without a
    meta-feature."""

    recommendations: list[Recommendation]
    neighbours: list[Neighbour]


class Preset(ABC):
    """How candidates are ranked by what the state holds, as one transaction sees it."""

    def __init__(self, versions: Versions, session: Session) -> None:
        self._versions, self._session = versions, session

    @abstractmethod
    def prepare(self, task: Task, space: SearchSpace) -> None:
        """Do now, while no trial waits for it, what ranking needs."""

    @abstractmethod
    def rank(self, task: Task, space: SearchSpace, candidates: Sequence[Configuration]) -> Ranking:
        """All candidates and all that they are ranked by."""

    @abstractmethod
    def pick(
        self, task: Task, space: SearchSpace, candidates: Sequence[Configuration], left: int
    ) -> list[Recommendation]:
        """One or more of the candidates to try next, at most as many as are `left` in the budget."""


class PaperPreset(Preset):
    """Equation 1 ranks once; the budget's better part is the top of the ranking, the rest is drawn (Appendix A)."""

    def prepare(self, task: Task, space: SearchSpace) -> None:
        self._versions.encoder(space)

    def rank(self, task: Task, space: SearchSpace, candidates: Sequence[Configuration]) -> Ranking:
        import torch

        from nni_hyperfd.method import scoring

        encoder, extractor_id = self._versions.encoder(space)
        rng = np.random.default_rng([task.settings["seed"], task.id])
        past = experience.drawn_tasks(self._session, experience.closed_tasks(self._session, space), rng)
        others = self._versions.meta_features((other for other in past if other.id != task.id), extractor_id)
        if task.meta_feature is not None:
            h = self._versions.transform(task.meta_feature, task.extractor_id, extractor_id)
            distances = {other: float(torch.linalg.vector_norm(known - h)) for other, known in others.items()}
        else:
            h, distances = unknown_meta_feature(others), {}
        with torch.no_grad():
            scores = scoring.score(encoder(torch.from_numpy(space.encode(candidates))), h).numpy()
        neighbours = sorted((Neighbour(*item) for item in distances.items()), key=lambda other: other.distance)
        return Ranking(_from_best_to_worst(candidates, scores), neighbours)

    def pick(
        self, task: Task, space: SearchSpace, candidates: Sequence[Configuration], left: int
    ) -> list[Recommendation]:
        import torch

        from nni_hyperfd.method import selection

        ranked = self.rank(task, space, candidates).recommendations
        scores = torch.tensor([r.score for r in ranked])
        seed = task.settings["seed"] + task.id
        return [ranked[i] for i in selection.explore_exploit(scores, left, task.settings["exploration"], seed)]


@dataclass(frozen=True, eq=False)
class Learned:
    """What the closed tasks of a space taught: `model`, learned from the tasks `task_ids`, whose meta-features were
    carried over to version `extractor_id`. `source` changes when there is more to learn from."""

    source: tuple[Any, ...]
    task_ids: list[int]
    extractor_id: int
    model: BeliefModel


class DefaultPreset(Preset):
    """A belief over the data set's vector (`nni_hyperfd.recommenders.hyperfd`): every pick is the best one given all
    results so far, with those that still run at their expected value.

    learned: by a space's signature; shared by the transactions of a platform.
    """

    def __init__(self, versions: Versions, session: Session, learned: dict[str, Learned]) -> None:
        super().__init__(versions, session)
        self._learned = learned

    def prepare(self, task: Task, space: SearchSpace) -> None:
        self._learn(task, space)

    def rank(self, task: Task, space: SearchSpace, candidates: Sequence[Configuration]) -> Ranking:
        learned, meta_feature = self._known(task, space)
        expected, deviation = self._recommender(task, space, candidates, 0).search.expected()
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

    def pick(
        self, task: Task, space: SearchSpace, candidates: Sequence[Configuration], left: int
    ) -> list[Recommendation]:
        recommender = self._recommender(task, space, candidates, left)
        expected, deviation = recommender.search.expected()
        (index,) = recommender.ask(1)
        rank = 1 + int((expected[: len(candidates)] > expected[index]).sum())
        return [Recommendation(candidates[index], rank, float(expected[index]), float(deviation[index]))]

    def _learn(self, task: Task, space: SearchSpace) -> Learned:
        """Learn from the closed tasks of a space, unless that is done already."""
        from nni_hyperfd.belief.model import BeliefModel, PastTask

        seed, extractor_id = task.settings["seed"], self._versions.head().id
        source = (seed, extractor_id, experience.count_closed_tasks(self._session, space))
        known = self._learned.get(space.signature)
        if known is not None and known.source == source:
            return known
        ids = experience.closed_tasks(self._session, space)
        rng = np.random.default_rng([seed, len(ids)])
        tasks = experience.drawn_tasks(self._session, ids, rng)
        meta_features = self._versions.meta_features(tasks, extractor_id)
        past = []
        for other in tasks:
            configurations, performance = experience.results(other)
            h = meta_features[other.id].numpy() if other.id in meta_features else None
            past.append(PastTask(space.encode(configurations), np.array(performance), h))
        model = BeliefModel.learned(past, space.dim, rng)
        learned = self._learned[space.signature] = Learned(source, [other.id for other in tasks], extractor_id, model)
        return learned

    def _known(self, task: Task, space: SearchSpace) -> tuple[Learned, np.ndarray | None]:
        """What was learned, and the task's meta-feature (64,) in the same version of the extractor."""
        learned = self._learn(task, space)
        if task.meta_feature is None:
            return learned, None
        return learned, self._versions.transform(task.meta_feature, task.extractor_id, learned.extractor_id).numpy()

    def _recommender(self, task: Task, space: SearchSpace, candidates: Sequence[Configuration], left: int) -> HyperFD:
        """A recommender that stands where the task stands; its candidates are the given ones, then the tried ones."""
        from nni_hyperfd.recommenders import base
        from nni_hyperfd.recommenders.hyperfd import HyperFD
        from nni_hyperfd.space.encoded import EncodedConfigurations

        learned, meta_feature = self._known(task, space)
        tried = [t for t in task.trials if t.phase in (FINE_TUNE, IMPORT) and t.status != "failed"]
        recommender = HyperFD(task.settings["seed"], learned.model)
        configurations = [*candidates, *(t.configuration for t in tried)]
        recommender.start_task(
            base.Task(len(tried) + left, meta_feature), EncodedConfigurations(space.encode(configurations))
        )
        sign = 1.0 if task.settings["maximize"] else -1.0
        for index, trial in enumerate(tried, start=len(candidates)):
            recommender.take(index)
            if trial.status == "succeeded":
                recommender.tell(index, sign * trial.performance)
        return recommender


def _from_best_to_worst(
    candidates: Sequence[Configuration], scores: np.ndarray, deviations: np.ndarray | None = None
) -> list[Recommendation]:
    """Recommendations by score. Candidates come in seeded random order and the sort is stable, so ties are broken at
    random."""
    order = np.argsort(-scores, kind="stable")
    return [
        Recommendation(candidates[i], rank, float(scores[i]), None if deviations is None else float(deviations[i]))
        for rank, i in enumerate(order, start=1)
    ]
