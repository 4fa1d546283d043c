"""What the state shows of tasks and trials: values that cannot change and need no transaction."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import datetime
from functools import lru_cache

from nni_hyperfd.space import Configuration, SearchSpace
from nni_hyperfd.state.tables import SpaceRow, TaskRow, TrialRow
from nni_hyperfd.task import RESULT_PHASES, Phase, Status, TaskSettings


@dataclass(frozen=True)
class TrialView:
    """One trial of a task.

    Attributes:
        id: names the trial in the state.
        parameter_id: NNI's name for it, or None before it runs and where a newer trial has got the same.
        phase: what it is for.
        status: where it stands.
        configuration: what it tries; empty for a learn trial.
        rank: place among the candidates when it was picked, from 1.
        score: what the ranker said of it then.
        performance: what it brought, in the trial's own units; None without a result.
        reason: why it failed.
        started: when it was handed out.
        ended: when it succeeded or failed.
        is_result: whether it tells how good its configuration is.
    """

    id: int
    parameter_id: int | None
    phase: Phase
    status: Status
    configuration: Configuration
    rank: int | None
    score: float | None
    performance: float | None
    reason: str | None
    started: datetime | None
    ended: datetime | None
    is_result: bool

    @classmethod
    def of(cls, row: TrialRow) -> TrialView:
        """The view of a row."""
        return cls(**{field.name: getattr(row, field.name) for field in fields(cls)})

    @property
    def tries(self) -> bool:
        """Whether it tries a configuration, in contrast to a service trial."""
        return self.phase in RESULT_PHASES


@dataclass(frozen=True)
class Results:
    """Tried configurations and what they brought: the higher the better, whatever the task optimises."""

    configurations: tuple[Configuration, ...]
    performance: tuple[float, ...]


@dataclass(frozen=True)
class TaskView:
    """One data set's turn.

    Attributes:
        id: names the task in the state; tasks are numbered in order of arrival.
        experiment: the NNI experiment.
        space: the search space.
        settings: how it is searched.
        dataset: the platform's own data set that the task stands for; None for a client's task.
        extractor_id: the version of the extractor that made `meta_feature`, or is to make it.
        meta_feature: 64 numbers, or None while or because nobody has described the data set.
        num_images: of the training split, or None.
        num_boxes: of the training split, or None.
        baseline: AP@50 before fine-tuning, or None.
        created: when it was opened.
        closed: when it was closed, or None for an open task.
        trials: in the order in which they were planned.
        among: number of owners' updates among which this one's may be used; 0 or None: he allows none.
        share: whether other owners' learn jobs may be given the meta-feature.
    """

    id: int
    experiment: str
    space: SearchSpace
    settings: TaskSettings
    dataset: str | None
    extractor_id: int
    meta_feature: tuple[float, ...] | None
    num_images: int | None
    num_boxes: int | None
    baseline: float | None
    created: datetime
    closed: datetime | None
    trials: tuple[TrialView, ...]
    among: int | None = None
    share: bool | None = None

    @classmethod
    def of(cls, row: TaskRow) -> TaskView:
        """The view of a row."""
        plain = {field.name: getattr(row, field.name) for field in fields(cls)}
        return cls(
            **plain
            | {
                "space": space_of(row.space),
                "meta_feature": None if row.meta_feature is None else tuple(row.meta_feature),
                "trials": tuple(map(TrialView.of, row.trials)),
            }
        )

    @property
    def results(self) -> Results:
        """What the task has taught, in the order of its trials."""
        finished = [trial for trial in self.trials if trial.is_result]
        sign = self.settings.sign
        return Results(
            tuple(trial.configuration for trial in finished),
            tuple(sign * trial.performance for trial in finished if trial.performance is not None),
        )

    @property
    def best(self) -> float | None:
        """The best performance so far, in the trial's own units."""
        return self.settings.sign * max(self.results.performance) if self.results.performance else None

    def running(self, parameter_id: int) -> TrialView | None:
        """The trial that runs under NNI's parameter id."""
        return next(
            (t for t in self.trials if t.parameter_id == parameter_id and t.status is Status.RUNNING),
            None,
        )


def space_of(row: SpaceRow) -> SearchSpace:
    """The search space of a row; equal rows share one."""
    return _space(row.kind, json.dumps(row.definition))


@lru_cache(maxsize=64)
def _space(kind: str, definition: str) -> SearchSpace:
    return SearchSpace.from_nni(json.loads(definition), kind)
