"""States of all earlier formats, made with the commits that wrote them, are upgraded: no result is lost.

What only the extractors of formats 1 to 3 could make is dropped with them: meta-features, encoders, and both networks.
From format 4 on everything stays.

`formats/` holds a state of each: two closed tasks, one of them with the paper's preset and one minimised, and one in
the middle of its task (described, one result, one failed trial, one running). Formats from 2 on also have a warm-up on
three data sets, and format 2 in a second file one with architectures. format4.sql.gz is the state of format 4 in
PostgreSQL, which tests/state/test_postgresql.py upgrades.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import multiprocessing
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pytest
import torch
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from nni_hyperfd.method import MetaFeatureExtractor
from nni_hyperfd.platform import Platform, own_datasets
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state import migrations
from nni_hyperfd.state.store import StateError, Store, head_of, sqlite_engine
from nni_hyperfd.state.tables import Base
from nni_hyperfd.task import Phase, Preset, Status, TaskSettings
from support.own_datasets import begin_warm, results, untaught

FORMATS = Path(__file__).with_name("formats")
SPACES = Path(__file__).resolve().parents[2] / "search_spaces"
KEPT = {
    "tasks": "id, experiment, space_signature, num_images, num_boxes, baseline, closed",
    "trials": "*",
    "spaces": "*",
    "offline_datasets": "name, features",
}
WHOLE = KEPT | {
    "tasks": f"{KEPT['tasks']}, settings, dataset, extractor_id, meta_feature, among, share, created",
    "offline_datasets": "*",
    "extractors": "*",
    "encoders": "*",
    "blobs": "*",
}
"""What stays of a format from 4 on."""
MIXING = ["format1", "format2", "format2_architectures", "format3"]
"""States whose extractor mixes the images of a data set."""


def earlier(name, folder):
    path = folder / "state.sqlite"
    path.write_bytes(gzip.decompress((FORMATS / f"{name}.sqlite.gz").read_bytes()))
    return path


def rows(path, table, columns="*"):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT {columns} FROM {table} ORDER BY 1").fetchall()


def content(path):
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def version(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]


@pytest.fixture(params=[*MIXING, "format4"])
def old(request, tmp_path):
    return earlier(request.param, tmp_path)


@pytest.fixture(params=MIXING)
def mixing(request, tmp_path):
    return earlier(request.param, tmp_path)


def test_there_is_a_state_of_every_earlier_format():
    found = {int(path.name.removeprefix("format")[0]) for path in FORMATS.glob("format*.sqlite.gz")}
    assert found == set(range(1, migrations.FORMAT))


def test_no_result_is_lost_and_the_earlier_state_stands_beside(old, caplog):
    before, number = content(old), version(old)
    stays = WHOLE if number > 3 else KEPT
    kept = {table: rows(old, table, columns) for table, columns in stays.items()}
    named = dict(rows(old, "blobs"))
    offline = {digest: named[digest] for _, digest, *_ in kept["offline_datasets"]}
    Store(old).close()
    backup = old.with_name(f"{old.name}.format{number}")
    assert content(backup) == before and version(backup) == number
    assert version(old) == migrations.FORMAT
    for table, columns in stays.items():
        assert rows(old, table, columns) == kept[table], table
    if number <= 3:
        assert dict(rows(old, "blobs")) == offline, "the platform's own data sets stay, and no weights"
    assert all(learned == closed for learned, closed in rows(old, "tasks", "learned, closed"))
    assert str(backup) in caplog.text and f"format {number}" in caplog.text
    Store(old).close()
    assert sorted(path.name for path in old.parent.glob("*.format*")) == [backup.name], "it is upgraded once"


def test_settings_become_complete_and_warm_ups_name_their_data_set(tmp_path):
    tasks = Platform(earlier("format2", tmp_path)).tasks()
    assert [task.dataset for task in tasks] == ["s0", "s1", "s2", None, None, None]
    closed, minimized, running = tasks[3:]
    assert closed.settings == TaskSettings(budget=3, candidates=20, preset=Preset.PAPER)
    assert minimized.settings == TaskSettings(budget=3, candidates=20, maximize=False)
    assert minimized.best == min(trial.performance for trial in minimized.trials if trial.is_result)
    assert running.settings == TaskSettings(budget=5, candidates=20, seed=7)
    states = [(trial.phase, trial.status) for trial in running.trials]
    assert states == [
        (Phase.EXTRACT, Status.SUCCEEDED),
        (Phase.FINE_TUNE, Status.SUCCEEDED),
        (Phase.FINE_TUNE, Status.FAILED),
        (Phase.FINE_TUNE, Status.RUNNING),
    ]


def test_an_extractor_that_mixes_images_is_replaced(mixing):
    platform = Platform(mixing)
    assert platform.counts()["extractor versions"] == 1 and platform.counts()["encoder versions"] == 0
    assert platform.versions.tensors(platform.versions.head_id()) == ({}, {})
    assert all(task.meta_feature is None for task in platform.tasks())
    assert {task.extractor_id for task in platform.tasks()} == {platform.versions.head_id()}


@pytest.mark.parametrize("name", ["format1", "format2", "format3", "format4"])
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_a_task_in_the_middle_goes_on_to_its_end_and_the_next_one_follows(name, preset, lab):
    path, width = earlier(name, lab.folder), 12 if name in ("format3", "format4") else 2
    tuner = lab.tuner("open", budget=5, seed=7)
    (running,) = [trial for trial in tuner.platform.task(tuner.task_id).trials if trial.status is Status.RUNNING]
    tuner.receive_trial_result(running.parameter_id, None, 0.7)
    lab.run(tuner, lab.dataset(3, width))
    task = tuner.platform.task(tuner.task_id)
    assert task.closed and len(task.results.performance) == 4 and task.best == 0.7
    lab.run(lab.tuner("next", budget=2, preset=preset), lab.dataset(4, width))
    assert path.exists() and all(task.closed for task in tuner.platform.tasks())
    assert tuner.platform.tasks()[-1].meta_feature is not None
    assert (task.meta_feature is not None) == (name == "format4"), "extractors of earlier formats are gone"


def test_an_upgraded_state_takes_over_the_extractor_of_what_new_ones_begin_with(lab, caplog):
    path = earlier("format3", lab.folder)
    source = lab.folder / "warm.sqlite"
    begin_warm(source, SearchSpace.from_nni(lab.space), lab.score, 2)
    given = head_of(source)
    tuner = lab.tuner("new", warm_start=str(source), budget=2)
    platform = tuner.platform
    assert head_of(path) == given and "has taken over that of" in caplog.text
    own = [task for task in platform.tasks() if task.dataset is not None]
    assert len(own) == 3 and all(len(task.meta_feature) == 64 for task in own)
    assert {task.extractor_id for task in own} == {platform.versions.head_id()}
    described = platform.versions.described([platform.versions.head_id()])[platform.versions.head_id()]
    assert set(described) == set(platform.versions.offline())
    lab.run(tuner, lab.dataset(4))
    again = lab.tuner("newer", warm_start=str(source), budget=2)
    assert again.platform.counts()["extractor versions"] == 2, "once"


def test_an_extractor_for_other_features_or_of_an_earlier_format_is_not_taken_over(lab):
    path = earlier("format3", lab.folder)
    wide = lab.folder / "wide.sqlite"
    own_datasets.begin_with(Platform(wide), SearchSpace.from_nni(lab.space), *wide_warm_up(lab), seed=0)
    old = lab.folder / "old.sqlite"
    old.write_bytes(gzip.decompress((FORMATS / "format2.sqlite.gz").read_bytes()))
    for number, source in enumerate([wide, old]):
        lab.tuner(f"e{number}", warm_start=str(source))
        assert head_of(path) is None


def wide_warm_up(lab):
    """A warm-up with a detector of another width."""
    space = SearchSpace.from_nni(lab.space)
    (one,) = results(space, lab.score, 1)
    warm = untaught(space)
    extractor = MetaFeatureExtractor.initial(13, 0)
    wide = dataclasses.replace(one, images=torch.cat([one.images, one.images[..., :1]], dim=-1))
    importance = {name: torch.ones_like(tensor) for name, tensor in extractor.state_dict().items()}
    return [wide], dataclasses.replace(warm, extractor=extractor, importance=importance)


def test_encoders_of_architectures_learn_anew_as_graphs(tmp_path):
    platform = Platform(earlier("format2_architectures", tmp_path))
    space = SearchSpace.from_nni(json.loads((SPACES / "proxylessnas.json").read_text()))
    assert platform.counts()["encoder versions"] == 0
    version = platform.learning.encoder(space)
    assert version.encoder.gin is not None and platform.counts()["encoder versions"] == 1
    assert platform.learning.encoder(space).id == version.id, "it is learned once"
    ranking = platform.rank(space, None, TaskSettings(candidates=10, preset=Preset.PAPER))
    assert len({round(pick.score, 6) for pick in ranking.recommendations}) == 10


# -- the tables --------------------------------------------------------------------------------------------------------


def differences(path):
    engine = sqlite_engine(path)
    with engine.begin() as connection:
        found = compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), Base.metadata)
    engine.dispose()
    return found


def test_an_upgraded_state_has_the_tables_of_a_new_one(old, tmp_path):
    Store(old).close()
    Store(tmp_path / "new.sqlite").close()
    assert differences(old) == differences(tmp_path / "new.sqlite") == []
    assert rows(old, "alembic_version") == rows(tmp_path / "new.sqlite", "alembic_version")


def test_the_revisions_alone_make_the_tables(tmp_path):
    from alembic import command

    path = tmp_path / "state.sqlite"
    engine = sqlite_engine(path, foreign_keys=False)
    with engine.begin() as connection:
        command.upgrade(migrations._config(connection), "head")
    engine.dispose()
    assert differences(path) == []


# -- upgrades that do not go smoothly ----------------------------------------------------------------------------------

KILLED = textwrap.dedent("""
    import os, signal, sys
    from sqlalchemy import event
    from nni_hyperfd.state import sqlite_file, store
    engine_of = sqlite_file.sqlite_engine
    left = int(sys.argv[2])

    def engine(path, foreign_keys=True):
        made = engine_of(path, foreign_keys)
        if not foreign_keys:
            @event.listens_for(made, "before_cursor_execute")
            def count(*_):
                global left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        return made

    sqlite_file.sqlite_engine = engine
    store.Store(sys.argv[1])
""")


@pytest.mark.parametrize("statements", [1, 6, 12, 20, 30, 45])
def test_a_kill_in_the_middle_leaves_the_earlier_state_and_the_next_start_finishes(statements, tmp_path):
    path = earlier("format1", tmp_path)
    before = content(path)
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path), str(statements)])
    assert ended.returncode == -signal.SIGKILL, "the upgrade has fewer statements"
    assert version(path) == 1 and content(path) == before
    for backup in path.parent.glob("*.format1"):
        assert content(backup) == before, "a backup is complete or not there"
    Store(path).close()
    assert version(path) == migrations.FORMAT and len(rows(path, "tasks")) == 3
    assert content(path.with_name(f"{path.name}.format1")) == before


def open_state(path, barrier):
    barrier.wait()
    Store(path).close()


@pytest.mark.slow
def test_two_at_once_upgrade_it_once(tmp_path):
    path = earlier("format1", tmp_path)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=open_state, args=(path, barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert version(path) == migrations.FORMAT and len(rows(path, "tasks")) == 3
    assert [backup.name for backup in tmp_path.glob("*.format*")] == ["state.sqlite.format1"]


def test_a_second_upgrade_of_the_same_file_keeps_the_first_backup(tmp_path):
    path = earlier("format1", tmp_path)
    Store(path).close()
    for stale in tmp_path.glob("state.sqlite-*"):
        stale.unlink()
    earlier("format2", tmp_path)
    Store(path).close()
    path.unlink()
    earlier("format1", tmp_path)
    Store(path).close()
    names = sorted(backup.name for backup in tmp_path.glob("*.format*"))
    assert names == ["state.sqlite.format1", "state.sqlite.format1-2", "state.sqlite.format2"]


def test_a_warm_start_of_an_earlier_format_is_upgraded_in_the_copy_alone(tmp_path):
    source = earlier("format2", tmp_path)
    given = source.read_bytes()
    copy = Platform(tmp_path / "mine" / "state.sqlite", source)
    assert [task.dataset for task in copy.tasks()][:3] == ["s0", "s1", "s2"]
    assert source.read_bytes() == given
    assert sorted(path.name for path in (tmp_path / "mine").iterdir() if "state.sqlite-" not in path.name) == [
        "state.sqlite"
    ]


def test_an_upgrade_that_fails_leaves_the_state_as_it_was(tmp_path):
    path = earlier("format2", tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE tasks SET settings = '[]' WHERE id = 4")
        connection.commit()
    before = content(path)
    with pytest.raises(StateError, match=r"its format 2 cannot be upgraded \(TypeError"):
        Store(path)
    assert content(path) == before and version(path) == 2
