"""What the state shows of tasks and trials."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from sqlalchemy import select

from nni_hyperfd.platform import Platform, Results, TaskView, TrialView
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state.tables import TrialRow
from nni_hyperfd.task import Phase, Preset, Replay, Status, TaskSettings
from support.rows import add_task

SPACE = SearchSpace.from_nni({"x": {"_type": "choice", "_value": [1, 2, 3, 4]}})


@pytest.fixture
def platform(lab):
    return Platform(lab.state)


def test_views_are_values_that_cannot_change(platform):
    task = platform.task(add_task(platform, SPACE, "a", [0.1, 0.2], meta_feature=[0.5] * 64))
    assert isinstance(task, TaskView) and all(isinstance(trial, TrialView) for trial in task.trials)
    for view in (task, task.trials[0], task.results, task.settings):
        with pytest.raises(FrozenInstanceError):
            view.id = 3
    assert isinstance(task.trials, tuple) and isinstance(task.meta_feature, tuple)
    assert platform.task(task.id) == task, "the same state, the same view"
    platform.add_experience(task.id, {"x": task.trials[0].configuration["x"]}, 0.9)
    assert platform.task(task.id) != task and len(task.trials) == 2


def test_a_view_says_what_was_stored(platform):
    settings = {"budget": 2, "seed": 7, "maximize": False, "preset": "paper", "replay": "meta-features"}
    task_id = add_task(platform, SPACE, "a", [0.1], settings=settings, dataset="s0", num_images=3, baseline=0.25)
    task = platform.task(task_id)
    assert task.settings == TaskSettings(
        2, seed=7, maximize=False, service=False, preset=Preset.PAPER, replay=Replay.META_FEATURES
    )
    assert (task.experiment, task.dataset, task.num_images, task.num_boxes, task.baseline) == ("a", "s0", 3, None, 0.25)
    assert task.space == SPACE and task.meta_feature is None and task.closed is not None
    (trial,) = task.trials
    assert type(trial.phase) is Phase and type(trial.status) is Status
    assert (trial.parameter_id, trial.performance, trial.rank, trial.reason) == (0, 0.1, None, None)


def test_results_are_the_finished_trials_and_more_is_better(platform):
    for maximize, sign in ((True, 1.0), (False, -1.0)):
        task_id = add_task(platform, SPACE, f"{maximize}", [0.1, None, 0.3], settings={"maximize": maximize})
        task = platform.task(task_id)
        tried = (task.trials[0].configuration, task.trials[2].configuration)
        assert task.results == Results(tried, (sign * 0.1, sign * 0.3))
        assert task.best == (0.3 if maximize else 0.1), "in the trial's own units"
    empty = platform.task(add_task(platform, SPACE, "empty", [None]))
    assert empty.results == Results((), ()) and empty.best is None


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("status", Status)
def test_what_is_a_result_is_decided_alike_in_the_database_and_outside(platform, phase, status):
    task_id = add_task(platform, SPACE, "a")
    with platform.store.write() as session:
        session.add(TrialRow(task_id=task_id, phase=phase, status=status, configuration={"x": 1}, performance=0.5))
    (trial,) = platform.task(task_id).trials
    expected = phase in (Phase.FINE_TUNE, Phase.IMPORT) and status is Status.SUCCEEDED
    assert trial.is_result is expected and trial.tries is (phase in (Phase.FINE_TUNE, Phase.IMPORT))
    with platform.store.read() as session:
        assert len(session.scalars(select(TrialRow).where(TrialRow.is_result)).all()) == expected
    assert len(platform.task(task_id).results.performance) == expected


def test_the_running_trial_of_a_parameter_id(platform):
    task_id = platform.open_task("a", SPACE, TaskSettings(service=False, budget=2))
    for parameter_id in (4, 5):
        platform.start(platform.next_trial(task_id).id, parameter_id)
    platform.observe(task_id, 4, 0.5)
    task = platform.task(task_id)
    assert task.running(4) is None and task.running(6) is None
    assert task.running(5) == task.trials[1]


def test_tasks_of_one_space_share_it(platform):
    ids = [add_task(platform, SPACE, name) for name in "ab"]
    spaces = [platform.task(task_id).space for task_id in ids]
    assert spaces[0] is spaces[1] and spaces[0].signature == SPACE.signature
