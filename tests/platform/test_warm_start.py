"""A new state begins with another one's warm-up; users' tasks come before it, and other detectors do without it."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import func, select

from nni_hyperfd import wire
from nni_hyperfd.experiment import class_args
from nni_hyperfd.experiment.class_args import WARM_STATE
from nni_hyperfd.experiment.tuner import ClassArgsError, HyperFDTuner
from nni_hyperfd.method import MetaFeatureExtractor, recipe
from nni_hyperfd.platform import StateError
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state.store import Store
from nni_hyperfd.state.tables import EncoderRow
from nni_hyperfd.task import Phase, Preset, Status, TaskSettings
from support.own_datasets import begin_warm

SETS = 4


@pytest.fixture(scope="module")
def warm(make_lab, tmp_path_factory) -> Path:
    """A state of four made-up data sets, whose networks have learned nothing: what they know is not tested here."""
    path = tmp_path_factory.mktemp("warm") / "warm.sqlite"
    begin_warm(path, SearchSpace.from_nni(make_lab.space), make_lab.score, SETS)
    return path


def content(path):
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


# -- the copy ---------------------------------------------------------------------------------------------------------


def test_a_new_state_begins_with_the_warm_one_and_is_its_own(lab, warm):
    given = warm.read_bytes()
    store = Store(lab.state, warm)
    assert content(lab.state) == content(warm)
    with store.write() as session:
        store.put(session, b"mine")
    store.close()
    assert warm.read_bytes() == given
    assert sorted(path.name for path in lab.state.parent.glob("*state*")) == ["state.sqlite"]
    assert not [path for path in lab.state.parent.iterdir() if path.name.startswith(".")]


def test_a_state_that_exists_is_left_as_it_is(lab, warm):
    lab.run(lab.tuner("mine", budget=1))
    before = content(lab.state)
    Store(lab.state, warm).close()
    Store(lab.state, warm.with_name("none.sqlite")).close()
    assert content(lab.state) == before


def test_what_the_warm_state_has_not_written_back_yet_comes_along(lab, warm, tmp_path):
    source = tmp_path / "in use.sqlite"
    store = Store(source, warm)
    with store.write() as session:
        store.put(session, b"recent")
    assert (tmp_path / "in use.sqlite-wal").exists()
    Store(lab.state, source).close()
    assert content(lab.state) == content(source)


def test_a_warm_state_that_cannot_be_read_is_named_and_nothing_is_made(lab, tmp_path):
    foreign = tmp_path / "foreign.sqlite"
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("create table notes (x)")
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"SQLite format 3\0" + 4000 * b"\xa5")
    for path, words in {foreign: "another program", damaged: "cannot read it", tmp_path / "none": "unable to"}.items():
        with pytest.raises(StateError, match=f"warm start {path}: .*{words}.*warm_start: none"):
            Store(lab.state, path)
    assert not [path for path in lab.state.parent.iterdir() if "state" in path.name]


def _open(state, warm, barrier):
    barrier.wait()
    Store(state, warm).close()


def test_experiments_that_begin_at_once_share_one_copy(lab, warm):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    processes = [context.Process(target=_open, args=(lab.state, warm, barrier)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert content(lab.state) == content(warm)
    assert not [path for path in lab.state.parent.iterdir() if path.name.startswith(".")]


# -- classArgs --------------------------------------------------------------------------------------------------------


def test_the_default_is_what_the_package_brings(lab, warm, monkeypatch):
    monkeypatch.setattr(class_args, "WARM_STATE", warm)
    assert len(HyperFDTuner(state=str(lab.state)).platform.tasks()) == SETS
    assert HyperFDTuner(state=str(lab.folder / "cold.sqlite"), warm_start="none").platform.tasks() == []
    named = HyperFDTuner(state=str(lab.folder / "named.sqlite"), warm_start=str(warm))
    assert len(named.platform.tasks()) == SETS


@pytest.mark.parametrize("name", ["hpo", "proxylessnas"])
def test_the_package_brings_a_small_warm_up_of_the_papers_spaces(lab, name):
    assert WARM_STATE.stat().st_size < 5_000_000
    space = json.loads((Path(__file__).parents[2] / "search_spaces" / f"{name}.json").read_text())
    own = lab.tuner("mine", space=space, warm_start="default")
    past = own.platform.tasks()[:-1]
    assert past and all(task.dataset is not None for task in past)
    mine = own.platform.tasks()[-1].space.signature
    assert sum(task.space.signature == mine for task in past) > 10
    with own.platform.store.read() as session:
        encoders = select(func.count()).where(EncoderRow.space_signature == mine)
        assert session.scalar(encoders) == 1, "nothing is to be learned before the first pick"
    lab.step(own, lab.dataset(1, feature_dim=84))  # 80 channels and a box, as the detector in trial_code/weights has
    task = own.platform.tasks()[-1]
    assert len(task.meta_feature) == 64 and task.extractor_id == past[0].extractor_id


def test_a_wrong_warm_start_is_named_and_no_state_is_made(lab):
    with pytest.raises(ClassArgsError, match="classArgs: warm_start: there is no file /no/such/file"):
        HyperFDTuner(state=str(lab.state), warm_start="/no/such/file")
    assert not lab.state.exists()


# -- beside users' tasks ----------------------------------------------------------------------------------------------


def test_the_first_task_starts_from_the_warm_up(lab, warm):
    own = lab.tuner("mine", budget=3, warm_start=str(warm))
    lab.run(own)
    task = own.platform.tasks()[-1]
    assert task.experiment == "mine" and task.closed is not None and len(task.meta_feature) == 64
    assert own.platform.counts() == {"extractor versions": 2, "encoder versions": 2, "offline data sets": SETS}
    ranking = own.platform.rank(SearchSpace.from_nni(lab.space), task.id, TaskSettings())
    assert sorted(other.task_id for other in ranking.neighbours) == [1, 2, 3, 4, 5]


def test_the_encoder_learns_from_the_warm_up_as_offline(lab, warm, monkeypatch):
    kinds, learned_encoder = [], recipe.learned_encoder

    def watch(encoder, current, past, settings, seed):
        kinds.append([task.offline for task in past])
        return learned_encoder(encoder, current, past, settings, seed)

    monkeypatch.setattr(recipe, "learned_encoder", watch)
    for number in range(2):
        lab.run(lab.tuner(f"mine {number}", budget=2, warm_start=str(warm)), lab.dataset(number))
    assert kinds == [[True] * SETS, [True] * SETS + [False]]


# -- another detector -------------------------------------------------------------------------------------------------


def test_a_detector_of_another_width_starts_anew_and_keeps_the_results(lab, warm, caplog):
    own = lab.tuner("wide", budget=2, preset="paper", warm_start=str(warm))
    lab.run(own, lab.dataset(1, feature_dim=20))
    task = own.platform.tasks()[-1]
    assert [trial.status for trial in task.trials] == [Status.SUCCEEDED] * 4 and len(task.meta_feature) == 64
    extractor, _ = own.platform.versions.tensors(own.platform.versions.head_id())
    assert MetaFeatureExtractor.from_weights(extractor).feature_dim == 20
    past = own.platform.tasks()[:-1]
    assert [other.meta_feature for other in past] == [None] * SETS
    assert [len(other.trials) for other in past] == [5] * SETS
    assert own.platform.counts()["offline data sets"] == 0
    assert caplog.text.count("made with a detector of another width") == 1
    lab.run(lab.tuner("wide again", budget=2, preset="paper"), lab.dataset(2, feature_dim=20))
    assert caplog.text.count("made with a detector of another width") == 1
    for preset in Preset:
        ranking = own.platform.rank(SearchSpace.from_nni(lab.space), task.id, TaskSettings(preset=preset))
        assert {other.task_id for other in ranking.neighbours} <= {task.id, task.id + 1}


def test_where_users_have_described_their_data_the_error_stays(lab, warm):
    lab.run(lab.tuner("narrow", budget=1, warm_start=str(warm)))
    request = lab.tuner("wide", budget=1).ask(0)
    assert not request.job.may_start_anew
    with pytest.raises(ValueError, match="made for a detector with 8 channels"):
        lab.serve(request, lab.dataset(1, feature_dim=20))


def test_who_comes_second_does_not_take_the_extractor_from_the_first(lab, warm):
    own, other = lab.tuner("one", budget=1, warm_start=str(warm)), lab.tuner("other", budget=1)
    wide = lab.serve(own.ask(0), lab.dataset(1, feature_dim=20))[0][0]
    assert wire.Description.unpack(wire.answer_in(wide)).initial
    assert lab.step(other).job.phase is Phase.EXTRACT  # describes by the warm extractor
    own.receive_intermediate(0, wide)
    trial = own.platform.task(own.task_id).trials[0]
    assert trial.status is Status.FAILED and "made for another detector" in trial.reason
    assert own.platform.counts()["offline data sets"] == SETS
