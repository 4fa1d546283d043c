"""What follows in a task, read from its trials alone: a platform that was killed goes on where its state says."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

import numpy as np

from nni_hyperfd.space import Configuration, SearchSpace
from nni_hyperfd.state.views import TaskView
from nni_hyperfd.task import Phase, Preset, Status, TaskSettings


class Step(Enum):
    """What is to be done in a task."""

    WAIT = auto()
    """Nothing: a trial is planned already, or what runs has to end first."""
    PICK = auto()
    """Choose configurations to try."""
    LEARN = auto()
    """Plan the learn trial."""
    CLOSE = auto()
    """Learn from the task's results and close it."""


def next_step(task: TaskView, candidates_left: bool) -> Step:
    """What follows in a task as it stands.

    Args:
        task: the task.
        candidates_left: whether there are candidates that were not tried.
    """
    running = [trial for trial in task.trials if trial.status is Status.RUNNING]
    planned = any(trial.status is Status.PLANNED for trial in task.trials)
    if task.closed or planned or any(trial.phase is Phase.EXTRACT for trial in running):
        return Step.WAIT
    if picks_left(task) and candidates_left:
        return Step.PICK
    if running:
        return Step.WAIT
    if _may_learn(task) and not any(trial.phase is Phase.LEARN for trial in task.trials):
        return Step.LEARN
    return Step.CLOSE


def _may_learn(task: TaskView) -> bool:
    """Whether the extractor is to learn next to the data: the paper's recipe asks for it, and the owner allows it."""
    return task.settings.preset is Preset.PAPER and bool(task.among) and task.meta_feature is not None


def picks_left(task: TaskView) -> int:
    """How much of the budget is left."""
    return max(0, task.settings.budget - sum(trial.phase is Phase.FINE_TUNE for trial in task.trials))


def untried(task: TaskView, drawn: Sequence[Configuration]) -> list[Configuration]:
    """Those of the task's candidates that no trial has tried and no import has brought."""
    known = {task.space.key(trial.configuration) for trial in task.trials if trial.tries}
    return [candidate for candidate in drawn if task.space.key(candidate) not in known]


def candidates(space: SearchSpace, settings: TaskSettings, task_id: int, count: int) -> list[Configuration]:
    """The first `count` candidates of a task; the same ones at every call."""
    return space.sample(count, np.random.default_rng([settings.seed, task_id]))
