"""Checking and copying whole states, and backups while others write."""

from __future__ import annotations

import itertools
import sqlite3
import threading
from contextlib import closing, contextmanager

import pytest

from nni_hyperfd.platform import EmbeddedPlatform, RefusedError, StateError
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state import operating
from nni_hyperfd.state.store import Store
from nni_hyperfd.state.tables import ExtractorRow
from support.own_datasets import begin_warm
from support.platform_contract import SPACE, described, run_next
from support.rows import add_task, all_rows


@pytest.fixture
def state(lab):
    """A user's state: a warm-up, a closed task, one in the middle, one without a description; and a tenant."""
    begin_warm(lab.state, SearchSpace.from_nni(lab.space), lab.score, 2)
    platform = EmbeddedPlatform(lab.state)
    add_task(platform, SPACE, "past", [0.5, None, 0.25])
    described(platform)
    add_task(platform, SPACE, "open", [0.5], closed=False)
    platform.tenants.add("a")
    platform.close()
    return str(lab.state)


def rows_of(state):
    store = Store(state)
    try:
        return all_rows(store)
    finally:
        store.close()


def test_a_users_file_becomes_a_shared_platform_and_a_file_again_and_nothing_is_lost(state, cluster, tmp_path):
    url, back = cluster.new_database(), str(tmp_path / "back.sqlite")
    before = rows_of(state)
    copied = operating.copy(state, url)
    assert rows_of(url) == before and copied == {name: len(rows) for name, rows in before.items()}
    assert operating.copy(url, back) == copied and rows_of(back) == before
    for written in (state, back):  # NULL in one is no "null" in the other
        with closing(sqlite3.connect(written)) as connection:
            assert connection.execute("SELECT count(*) FROM tasks WHERE meta_feature IS NULL").fetchone() == (2,)
    with pytest.raises(RefusedError, match="it is not empty"):
        operating.copy(back, url)
    with pytest.raises(RefusedError, match="it is not empty"):
        operating.copy(url, state)
    assert rows_of(state) == before and operating.check(url).faults == []

    platform = EmbeddedPlatform(url)
    middle = next(task for task in platform.tasks() if task.experiment == "e")
    run_next(platform, middle.id, 1)
    platform.observe(middle.id, 1, 0.5)
    assert platform.task(middle.id).best == 0.5, "the experiment goes on"
    highest = max(row[0] for row in before["tasks"])
    assert add_task(platform, SPACE, "next", [0.5]) == highest + 1
    assert platform.tenants.add("b") and [tenant.name for tenant in platform.tenants.list()] == ["a", "b"]
    platform.close()


def test_what_is_wrong_is_found_and_nothing_is_made_by_looking(state, tmp_path):
    assert operating.check(state).faults == []
    with closing(sqlite3.connect(state)) as connection:
        connection.execute("UPDATE blobs SET data = x'00' WHERE sha256 = (SELECT min(sha256) FROM blobs)")
        connection.execute("UPDATE encoders SET weights = 'gone'")
        connection.execute("UPDATE trials SET task_id = 99 WHERE id = 1")
        connection.commit()
    faults = operating.check(state).faults
    assert len(faults) == 3 and any("is damaged" in fault for fault in faults)
    assert "trials.task_id: 1 rows refer to tasks that are missing" in faults
    assert "blobs: 1 weights or features that versions and data sets need are missing" in faults
    nowhere = tmp_path / "folder" / "nowhere.sqlite"
    for look in (operating.check, operating.upgrade, lambda state: operating.copy(state, str(tmp_path / "new"))):
        with pytest.raises(StateError, match="there is none yet"):
            look(str(nowhere))
    assert not nowhere.parent.exists() and not (tmp_path / "new").exists()


@contextmanager
def somebody_writes(url):
    """Within the block, rows and blobs are added, one of each in every transaction; yields how many there are."""
    store, ends, written = Store(url), threading.Event(), []

    def write():
        for number in itertools.count():
            with store.write() as session:
                session.add(ExtractorRow(head=False, weights=store.put(session, str(number).encode())))
            written.append(number)
            if ends.is_set():
                return

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield written
    finally:
        ends.set()
        thread.join()
        store.close()


def test_backups_while_others_write_are_of_one_moment_and_can_be_restored(cluster, tmp_path):
    url, copy = cluster.new_database(), str(tmp_path / "copy.sqlite")
    with somebody_writes(url) as written:
        dump = cluster.dump(url)
        in_dump = len(written)
        copied = operating.copy(url, copy)
        in_copy = len(written)
    total = operating.check(url).rows["blobs"]
    assert total == len(written) > in_copy >= copied["blobs"] > 0, "writers were not held up"
    restored = cluster.restored(dump)
    for backup, most in ((restored, in_dump), (copy, in_copy)):
        checked = operating.check(backup)
        assert checked.faults == [] and checked.rows["blobs"] == checked.rows["extractors"] <= most + 1
    store = Store(restored)
    with store.write() as session:
        session.add(ExtractorRow(head=False))
    store.close()
    assert operating.check(restored).faults == []
