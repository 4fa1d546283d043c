"""States of all earlier formats, made with the commits that wrote them, are upgraded with nothing lost.

`formats/` holds a state of each: two closed tasks, one of them with the paper's preset and one minimised, and one in
the middle of its task (described, one result, one failed trial, one running). Format 2 also has a warm-up on three data
sets, and in a second file one with architectures.
"""

from __future__ import annotations

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
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from nni_hyperfd.platform import Platform
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state import migrations
from nni_hyperfd.state.store import StateError, Store, sqlite_engine
from nni_hyperfd.state.tables import Base
from nni_hyperfd.task import Phase, Preset, Status, TaskSettings

FORMATS = Path(__file__).with_name("formats")
SPACES = Path(__file__).resolve().parents[2] / "search_spaces"
KEPT = {
    "tasks": "id, experiment, space_signature, extractor_id, meta_feature, num_images, num_boxes, baseline, closed",
    "trials": "*",
    "spaces": "*",
    "offline_datasets": "*",
    "extractors": "id, parent_id, head, weights, importance, created",
}


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


@pytest.fixture(params=["format1", "format2", "format2_architectures"])
def old(request, tmp_path):
    return earlier(request.param, tmp_path)


def test_there_is_a_state_of_every_earlier_format():
    found = {int(path.name.removeprefix("format")[0]) for path in FORMATS.glob("format*.sqlite.gz")}
    assert found == set(range(1, migrations.FORMAT))


def test_nothing_is_lost_and_the_earlier_state_stands_beside(old, caplog):
    before, number = content(old), version(old)
    kept = {table: rows(old, table, columns) for table, columns in KEPT.items()}
    named = dict(rows(old, "blobs"))
    Store(old).close()
    backup = old.with_name(f"{old.name}.format{number}")
    assert content(backup) == before and version(backup) == number
    assert version(old) == migrations.FORMAT
    for table, columns in KEPT.items():
        assert rows(old, table, columns) == kept[table], table
    assert named.items() <= dict(rows(old, "blobs")).items()
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


@pytest.mark.parametrize("name", ["format1", "format2"])
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_a_task_in_the_middle_goes_on_to_its_end_and_the_next_one_follows(name, preset, lab):
    path = earlier(name, lab.folder)
    tuner = lab.tuner("open", budget=5, seed=7)
    (running,) = [trial for trial in tuner.platform.task(tuner.task_id).trials if trial.status is Status.RUNNING]
    tuner.receive_trial_result(running.parameter_id, None, 0.7)
    lab.run(tuner, lab.dataset(3, 2))
    task = tuner.platform.task(tuner.task_id)
    assert task.closed and len(task.results.performance) == 4 and task.best == 0.7
    lab.run(lab.tuner("next", budget=2, preset=preset), lab.dataset(4, 2))
    assert path.exists() and all(task.closed for task in tuner.platform.tasks())
    assert all(len(task.meta_feature) == 64 for task in tuner.platform.tasks())


def test_meta_features_of_format_1_are_carried_over_by_maps_made_anew(tmp_path):
    """Format 1 stored the maps; they follow from the weights, which it never dropped."""
    path = earlier("format1", tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        stored = connection.execute(
            "SELECT source_id, target_id, data FROM transformations JOIN blobs ON sha256 = weights"
        ).fetchall()
    assert stored, "the fixture has maps"
    import torch

    from nni_hyperfd.method import weights

    platform = Platform(path)
    for source_id, target_id, data in stored:
        (matrix,) = weights.loads(data).values()
        for task in platform.tasks():
            if task.extractor_id == source_id:
                carried = platform.versions.carried([task], target_id)[task.id]
                torch.testing.assert_close(carried, matrix @ torch.tensor(task.meta_feature), rtol=1e-4, atol=1e-4)


def test_encoders_of_hyper_parameters_keep_their_scores(tmp_path):
    import numpy as np
    import torch

    from nni_hyperfd.method import MLPEncoder, weights

    path = earlier("format2", tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        (data,) = connection.execute(
            "SELECT data FROM rankers JOIN blobs ON sha256 = weights ORDER BY id DESC LIMIT 1"
        ).fetchone()
    platform = Platform(path)
    space = platform.tasks()[0].space
    flat = MLPEncoder(space.dim)
    flat.load_state_dict(weights.loads(data))
    encoded = space.encode(space.sample(9, np.random.default_rng(0)))
    upgraded = platform.versions.encoder(space)
    assert torch.equal(upgraded.encoder(encoded), flat(torch.from_numpy(encoded.vectors)))


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
    from nni_hyperfd.state import store
    engine_of = store.sqlite_engine
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

    store.sqlite_engine = engine
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
