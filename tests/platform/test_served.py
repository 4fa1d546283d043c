"""The platform behind a server: learning is left to workers, and requests are answered from the newest belief."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from nni_hyperfd.belief.model import BeliefModel
from nni_hyperfd.platform import Platform
from nni_hyperfd.platform.served import ServedPlatform
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.task import Preset, TaskSettings
from support.rows import add_task

SPACE = SearchSpace.from_nni({"x": {"_type": "uniform", "_value": [0, 1]}})
RESULTS = [0.1, 0.4, 0.2]


class Told:
    """A queue that nobody works off."""

    def __init__(self):
        self.spaces = []

    def put(self, space_signature):
        self.spaces.append(space_signature)


@pytest.fixture
def queue():
    return Told()


@pytest.fixture
def platform(tmp_path, queue):
    platform = ServedPlatform(tmp_path / "state.sqlite", None, queue)
    yield platform
    platform.close()


@pytest.fixture
def learnings(monkeypatch):
    """Calls of what takes time, each of which waits for `go`."""
    calls, go, learned = [], threading.Event(), BeliefModel.learned

    def watched(*arguments, **named):
        calls.append(threading.current_thread().name)
        assert go.wait(60)
        return learned(*arguments, **named)

    monkeypatch.setattr(BeliefModel, "learned", watched)
    return calls, go


def opened(platform, name, **settings):
    return platform.open_task(name, SPACE, TaskSettings(service=False, candidates=10, **settings))


def test_closing_is_one_thing_and_learning_another(platform, queue, tmp_path):
    task_id = add_task(platform, SPACE, "e", RESULTS, closed=False)
    for _ in range(2):
        platform.close_task(task_id)
    assert platform.task(task_id).closed is not None and queue.spaces == [SPACE.signature]
    assert platform.versions.encoder(SPACE).id is None
    platform.job(opened(platform, "paper", preset=Preset.PAPER), "learn")
    assert queue.spaces == [SPACE.signature], "there is nothing that had been learned from"
    worker = Platform(tmp_path / "state.sqlite")
    assert worker.learning.due() == [SPACE.signature] and worker.learning.learn_next(SPACE.signature)
    assert not worker.learning.learn_next(SPACE.signature) and worker.learning.due() == []
    assert platform.versions.encoder(SPACE).id == 1


def test_many_tasks_at_once_learn_one_belief_and_a_newer_one_beside_them(platform, learnings, tmp_path):
    calls, go = learnings
    worker = Platform(tmp_path / "state.sqlite")
    add_task(worker, SPACE, "past", RESULTS, learned=False)
    worker.learning.learn_next(SPACE.signature)
    ids = [opened(platform, f"e{number}", seed=number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(platform.next_trial, task_id) for task_id in ids]
        go.set()
        assert all(each.result() is not None for each in asked)
    assert len(calls) == 1

    go.clear()
    add_task(worker, SPACE, "newer", RESULTS, learned=False)
    worker.learning.learn_next(SPACE.signature)
    before = platform._belief.learned[SPACE.signature]
    for number in range(3):
        assert platform.next_trial(opened(platform, f"f{number}")) is not None, "nobody waits"
    assert platform._belief.learned[SPACE.signature] is before
    go.set()
    platform._belief._thread.submit(lambda: None).result()
    assert len(calls) == 2 and calls[1].startswith("belief")
    assert platform._belief.learned[SPACE.signature].task_ids == [1, 10]
