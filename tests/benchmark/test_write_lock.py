"""How long the write lock is held: what counts, and the whole measurement on a small state."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy import text

from nni_hyperfd.benchmark import state, write_lock
from nni_hyperfd.platform.platform import Platform
from nni_hyperfd.state.store import Store


def test_write_transactions_are_measured_from_begin_to_commit_or_rollback(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.sqlite")
    with write_lock.watched() as watch:
        with store.write() as session:
            session.execute(text("SELECT 1"))
            time.sleep(0.2)
        watch.step = "closing"
        with pytest.raises(ZeroDivisionError), store.write() as session:
            session.execute(text("CREATE TABLE lost (id INTEGER)"))
            raise ZeroDivisionError
        with store.read() as session:
            session.execute(text("SELECT 1"))
    with store.write() as session:
        session.execute(text("SELECT 1"))
    (first, committed), (second, rolled_back) = watch.held
    assert (first, second) == ("until closing", "closing")
    assert 0.2 <= committed and 0 < rolled_back


def test_waiting_for_the_lock_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    barrier = Barrier(2)
    stores = [Store(path), Store(path)]

    def write(store: Store) -> None:
        barrier.wait(60)
        with store.write() as session:
            session.execute(text("SELECT 1"))
            time.sleep(0.3)

    with write_lock.watched() as watch, ThreadPoolExecutor(2) as pool:
        began = time.perf_counter()
        list(pool.map(write, stores))
        took = time.perf_counter() - began
    held = [seconds for _, seconds in watch.held]
    assert len(held) == 2 and all(seconds >= 0.3 for seconds in held)
    assert sum(held) <= took, "two holders at once"


def test_two_processes_close_their_tasks_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "LIVED", 1)
    path = tmp_path / "state.sqlite"
    platform = Platform(path)
    state.add_offline_sets(platform)
    state.grow(platform, 3)
    assert len(platform.tasks()) == 3
    found = write_lock.measure(path, rounds=1)
    tasks = platform.tasks()
    assert len(tasks) == 5 and all(task.closed is not None for task in tasks)
    for held in found:
        assert {step for step, _ in held} == set(write_lock.STEPS)
        assert all(seconds > 0 for _, seconds in held)
