from __future__ import annotations

import pytest

from nni_hyperfd.platform import Platform
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state import experience
from nni_hyperfd.state.tables import TrialRow
from nni_hyperfd.task import Phase, Status
from support.rows import add_task

SPACE = SearchSpace.from_nni({"x": {"_type": "choice", "_value": [1, 2, 3, 4]}})
OTHER = SearchSpace.from_nni({"x": {"_type": "choice", "_value": [1, 2, 3]}})


@pytest.fixture
def platform(lab):
    return Platform(lab.state)


def test_closed_tasks_are_those_of_the_space_that_have_something_to_rank(platform):
    own = [add_task(platform, SPACE, "a", [0.1, 0.2]), add_task(platform, SPACE, "b", [0.1, None, 0.3])]
    for name, performances in {"constant": [0.5, 0.5], "one": [0.5], "failed": [None, None], "none": []}.items():
        add_task(platform, SPACE, name, performances)
    offline = add_task(platform, SPACE, "warm-up", [0.1, 0.2], dataset="s0")
    add_task(platform, OTHER, "other space", [0.1, 0.2])
    add_task(platform, SPACE, "open", [0.1, 0.2], closed=False)
    own.append(add_task(platform, SPACE, "c", [0.3, 0.2]))
    with platform.store.read() as session:
        assert experience.closed_ids(session, SPACE) == (own, [offline])
        assert experience.count_closed(session, SPACE) == 6
        assert experience.count_closed(session, OTHER) == 1


def test_what_a_service_trial_says_is_nothing_to_rank(platform):
    task_id = add_task(platform, SPACE, "a", [0.5])
    with platform.store.write() as session:
        for phase in (Phase.EXTRACT, Phase.LEARN):
            row = TrialRow(task_id=task_id, phase=phase, status=Status.SUCCEEDED, configuration={}, performance=0.1)
            session.add(row)
        session.flush()
        assert experience.closed_ids(session, SPACE) == ([], [])
        session.add(
            TrialRow(
                task_id=task_id, phase=Phase.IMPORT, status=Status.SUCCEEDED, configuration={"x": 1}, performance=0.2
            )
        )
        session.flush()
        assert experience.closed_ids(session, SPACE) == ([task_id], [])


def test_tasks_come_in_order_of_arrival(platform):
    ids = [add_task(platform, SPACE, str(number)) for number in range(5)]
    with platform.store.read() as session:
        assert [task.id for task in experience.tasks(session)] == ids
        assert [task.id for task in experience.tasks(session, [ids[3], ids[0]])] == [ids[0], ids[3]]
        assert experience.tasks(session, []) == []
