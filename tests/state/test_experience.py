from __future__ import annotations

import numpy as np
import pytest

from nni_hyperfd.platform.platform import Platform
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state import experience
from nni_hyperfd.task import TaskSettings

SPACE = SearchSpace.from_nni({"x": {"_type": "choice", "_value": [1, 2, 3, 4]}})
OTHER = SearchSpace.from_nni({"x": {"_type": "choice", "_value": [1, 2, 3]}})


def finished(platform, name, performances, space=SPACE, **settings):
    """A closed task with these results; None for a failed trial."""
    settings = TaskSettings(service=False, budget=len(performances), **settings)
    task_id = platform.open_task(name, space, settings)
    for parameter_id, performance in enumerate(performances):
        platform.start(platform.next_trial(task_id).id, parameter_id)
        platform.observe(task_id, parameter_id, performance)
    platform.settle(task_id)
    return task_id


def test_closed_tasks_are_those_of_the_space_that_have_something_to_rank(lab):
    platform = Platform(lab.state)
    kept = [finished(platform, "a", [0.1, 0.2]), finished(platform, "b", [0.1, None, 0.3])]
    for name, performances in {"constant": [0.5, 0.5], "one": [0.5], "failed": [None, None]}.items():
        finished(platform, name, performances)
    finished(platform, "other space", [0.1, 0.2], OTHER)
    platform.open_task("open", SPACE, TaskSettings())
    with platform.store.read() as session:
        assert experience.closed_tasks(session, SPACE) == kept


def test_results_are_the_finished_trials_and_more_is_better(lab):
    platform = Platform(lab.state)
    for name, maximize, sign in (("up", True, 1), ("down", False, -1)):
        task = platform.task(finished(platform, name, [0.1, None, 0.3], maximize=maximize))
        configurations, performance = experience.results(task)
        assert performance == [sign * 0.1, sign * 0.3]
        assert configurations == [task.trials[0].configuration, task.trials[2].configuration]


@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_the_newest_task_is_always_drawn_and_never_more_than_32(lab, count):
    platform = Platform(lab.state)
    ids = [platform.open_task(str(number), SPACE, TaskSettings(service=False)) for number in range(count)]
    with platform.store.read() as session:
        drawn = [[t.id for t in experience.drawn_tasks(session, ids, np.random.default_rng(s))] for s in (0, 0, 1)]
    assert drawn[0] == drawn[1] == sorted(set(drawn[0]))
    assert len(drawn[0]) == min(count, 32) and drawn[0][-1:] == ids[-1:]
    assert (drawn[0] != drawn[2]) == (count > 32)
