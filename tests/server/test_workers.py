"""Learning beside the requests: in a thread of the server, and in `hyperfd worker` processes on one database."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

import pytest

pytest.importorskip("fastapi", reason="the extra `server` is not installed")
from sqlalchemy import select

from nni_hyperfd.method import weights
from nni_hyperfd.platform import Platform
from nni_hyperfd.platform.abandoned import close_abandoned
from nni_hyperfd.server.chores import Pace
from nni_hyperfd.server.opening import served_platform
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state.tables import EncoderRow, TaskRow, TrialRow
from nni_hyperfd.task import Phase, Status
from support.platform_contract import Contract
from support.rows import add_task

SPACES = [SearchSpace.from_nni({name: {"_type": "choice", "_value": [1, 2, 3, 4]}}) for name in "xy"]
RESULTS = [0.1, 0.4, 0.2]
MAIN = "from nni_hyperfd.cli import main; main()"
NEVER = Pace(every=3600)


def closed_tasks(platform, count, first=0, **fields):
    """Tasks of both spaces in turn, of which nobody has been told."""
    for number in range(first, first + count):
        add_task(platform, SPACES[number % 2], f"e{number}", [r + number / 50 for r in RESULTS], **fields)


def learned_from(platform, space):
    with platform.store.read() as session:
        rows = select(EncoderRow.task_id).where(EncoderRow.space_signature == space.signature).order_by(EncoderRow.id)
        return list(session.scalars(rows))


def encoders(platform):
    return [weights.dumps(platform.versions.encoder(space).encoder.state_dict()) for space in SPACES]


def embedded(folder, count):
    """The encoders of an embedded platform whose tasks were closed in the same order."""
    platform = Platform(folder / "embedded.sqlite")
    closed_tasks(platform, count, closed=False)
    for task in platform.tasks():
        platform.learning.close(task.id)
    return encoders(platform)


def wait_until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def workers(url, count, *options):
    command = [sys.executable, "-c", MAIN, "worker", "--database", url, *options]
    started = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def all_learned(platform, started):
    def condition():
        assert [process.poll() for process in started] == [None] * len(started)
        return not platform.learning.due()

    return condition


@pytest.mark.slow
def test_two_workers_learn_each_task_once_and_as_an_embedded_platform_would(cluster, tmp_path):
    url = cluster.new_database()
    platform = Platform(url)
    closed_tasks(platform, 10, learned=False)  # as after crashes between closing and queueing
    with workers(url, 2, "--every", "3600") as started:
        wait_until(all_learned(platform, started))
        with served_platform(url) as served:  # and now they are told by the queue alone
            closed_tasks(served, 2, 10, closed=False)
            for task_id in (11, 12):
                served.close_task(task_id)
                assert served.task(task_id).closed is not None
        wait_until(all_learned(platform, started))
        for process in started:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(60) for process in started] == [0, 0]
    assert [learned_from(platform, space) for space in SPACES] == [[*range(1, 13, 2)], [*range(2, 13, 2)]]
    assert encoders(platform) == embedded(tmp_path, 12)
    platform.store.close()


@pytest.mark.slow
def test_what_a_killed_worker_was_learning_is_learned_by_another(cluster, tmp_path):
    url = cluster.new_database()
    platform = Platform(url)
    closed_tasks(platform, 12, learned=False)
    pace = ["--every", "0.3", "--heartbeat", "0.3", "--stalled", "1.5"]
    with workers(url, 1, *pace) as (first,):
        wait_until(lambda: any(learned_from(platform, space) for space in SPACES))
        first.kill()
        first.wait()
    assert platform.learning.due(), "it was killed half-way"
    with workers(url, 1, *pace) as started:
        wait_until(all_learned(platform, started))
    assert [learned_from(platform, space) for space in SPACES] == [[*range(1, 13, 2)], [*range(2, 13, 2)]]
    assert encoders(platform) == embedded(tmp_path, 12)
    platform.store.close()


def test_the_thread_of_a_server_on_a_file_learns_what_was_left_and_what_it_is_told(tmp_path):
    state = tmp_path / "state.sqlite"
    platform = Platform(state)
    closed_tasks(platform, 2, learned=False)
    with served_platform(str(state), pace=NEVER) as served:
        wait_until(lambda: not platform.learning.due())
        closed_tasks(served, 2, 2, closed=False)
        for task_id in (3, 4):
            served.close_task(task_id)
        wait_until(lambda: not platform.learning.due())
    assert [learned_from(platform, space) for space in SPACES] == [[1, 3], [2, 4]]
    assert encoders(platform) == embedded(tmp_path, 4)


def test_a_task_that_cannot_be_learned_from_does_not_hold_up_the_next(tmp_path, monkeypatch, caplog):
    platform = Platform(tmp_path / "state.sqlite")
    closed_tasks(platform, 5, learned=False)
    after = platform.learning._after

    def fails(task):
        if task.id == 3:
            raise ValueError("a fault")
        return after(task)

    monkeypatch.setattr(platform.learning, "_after", fails)
    while any(platform.learning.learn_next(space.signature) for space in SPACES):
        pass
    assert [learned_from(platform, space) for space in SPACES] == [[1, 5], [2, 4]] and "Task 3 cannot be" in caplog.text
    assert platform.learning.due() == []


def test_tasks_without_news_are_closed_or_removed(tmp_path):
    platform = Platform(tmp_path / "state.sqlite")
    now = datetime.now(timezone.utc)
    created = now - timedelta(days=20)
    ids = [
        add_task(platform, SPACES[0], name, performances, closed=closed, created=created)
        for name, performances, closed in [
            ("left", RESULTS, False),
            ("empty", [], False),
            ("alive", RESULTS, False),
            ("ended", RESULTS, True),
        ]
    ]
    with platform.store.write() as session:
        for trial in session.scalars(select(TrialRow)):
            trial.ended = now - timedelta(days=1 if trial.task_id == ids[2] else 15)
        for status in (Status.RUNNING, Status.PLANNED):
            session.add(TrialRow(task_id=ids[0], phase=Phase.FINE_TUNE, status=status, configuration={"x": 1}))
    assert close_abandoned(platform, now - timedelta(days=14)) == ([ids[0]], [ids[1]])
    left, alive, _ = platform.tasks()
    assert left.closed is not None and alive.closed is None and [t.id for t in platform.tasks()] == [1, 3, 4]
    assert len(left.results.performance) == 3 and len(left.trials) == 4
    assert "has not been heard of since" in left.trials[-1].reason and left.trials[-1].status is Status.FAILED
    assert platform.learning.due() == [SPACES[0].signature], "and it is learned from like the others"
    with platform.store.read() as session:
        assert session.get_one(TaskRow, ids[0]).learned is None
    assert close_abandoned(platform, now - timedelta(days=14)) == ([], [])


class TestServedPlatform(Contract):
    """What every platform does, with a worker beside it."""

    @pytest.fixture
    def client(self, tmp_path):
        with served_platform(str(tmp_path / "state.sqlite"), pace=NEVER) as platform:
            yield platform
