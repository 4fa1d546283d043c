"""What a task will look like once the server has heard of a call: all that a client can go by while it is away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nni_hyperfd.platform import TaskView, TrialView
from nni_hyperfd.space import Configuration
from nni_hyperfd.task import Phase, Status
from nni_hyperfd.wire import Description

_UNFINISHED = (Status.PLANNED, Status.RUNNING)


def new_trial(task: TaskView, phase: Phase, configuration: Configuration, rank: int | None = None) -> TrialView:
    """A trial that the server does not know: its id is negative until it does."""
    number = -1 - len(task.trials)
    return TrialView(
        number, None, phase, Status.PLANNED, configuration, rank, None, None, None, None, None, is_result=False
    )


def started(task: TaskView, trial: TrialView, parameter_id: int) -> TaskView:
    """The trial runs under NNI's parameter id; one that was not known is added."""
    if all(known.id != trial.id for known in task.trials):
        task = replace(task, trials=(*task.trials, trial))
    task = _changed(task, lambda t: t.parameter_id == parameter_id, lambda t: replace(t, parameter_id=None))
    return _changed(
        task, lambda t: t.id == trial.id, lambda t: replace(t, status=Status.RUNNING, parameter_id=parameter_id)
    )


def described(task: TaskView, parameter_id: int, description: Description) -> TaskView:
    """The extract trial has ended."""
    h = None if description.meta_feature is None else tuple(description.meta_feature)
    task = replace(task, meta_feature=h, baseline=description.baseline)
    return _changed(
        task, _runs(parameter_id), lambda t: replace(t, status=Status.SUCCEEDED, performance=description.baseline)
    )


def observed(task: TaskView, parameter_id: int, performance: float | None, reason: str | None) -> TaskView:
    """A trial has brought a performance, or has failed. An extract trial that brings one has tried a configuration."""

    def change(trial: TrialView) -> TrialView:
        if performance is None:
            return replace(trial, status=Status.FAILED, reason=reason)
        phase = Phase.FINE_TUNE if trial.phase is Phase.EXTRACT else trial.phase
        return _succeeded(replace(trial, phase=phase), performance)

    return _changed(task, lambda t: t.parameter_id == parameter_id and t.status is not Status.SUCCEEDED, change)


def with_experience(task: TaskView, configuration: Configuration, performance: float, phase: Phase) -> TaskView:
    """A result that came with its configuration belongs to the unfinished trial of both, or to a new one."""
    known = [trial for trial in task.trials if trial.configuration == configuration]
    if any(trial.is_result and trial.performance == performance for trial in known):
        return task
    found = next((t for t in known if t.phase is phase and t.status in _UNFINISHED), None)
    if found is None:
        found = new_trial(task, Phase.IMPORT, configuration)
        task = replace(task, trials=(*task.trials, found))
    is_extract = found.phase is Phase.EXTRACT
    done = _succeeded(replace(found, phase=Phase.FINE_TUNE) if is_extract else found, performance)
    return _changed(task, lambda t: t.id == done.id, lambda _: done)


def released(task: TaskView, gone: set[tuple[int, int | None]]) -> TaskView:
    """Trials are planned anew."""
    return _changed(
        task,
        lambda t: t.status is Status.RUNNING and (t.id, t.parameter_id) in gone,
        lambda t: replace(t, status=Status.PLANNED),
    )


def learned(task: TaskView) -> TaskView:
    """The learn trial has ended. Only the server closes a task."""
    return _changed(
        task,
        lambda t: t.phase is Phase.LEARN and t.status is Status.RUNNING,
        lambda t: replace(t, status=Status.SUCCEEDED),
    )


def _succeeded(trial: TrialView, performance: float) -> TrialView:
    return replace(trial, status=Status.SUCCEEDED, performance=performance, is_result=trial.tries)


def _runs(parameter_id: int) -> Callable[[TrialView], bool]:
    return lambda trial: trial.parameter_id == parameter_id and trial.status is Status.RUNNING


def _changed(task: TaskView, which: Callable[[TrialView], bool], change: Callable[[TrialView], TrialView]) -> TaskView:
    return replace(task, trials=tuple(change(trial) if which(trial) else trial for trial in task.trials))
