"""A new state begins with another one's warm-up; users' tasks come before it, and other detectors do without it."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from nni_hyperfd.experiment import tuner
from nni_hyperfd.experiment.tuner import ClassArgsError, HyperFDTuner
from nni_hyperfd.method import MetaFeatureExtractor, weights
from nni_hyperfd.method.config_encoder import MLPEncoder
from nni_hyperfd.method.learning import WarmUp
from nni_hyperfd.method.settings import MOST_TASKS
from nni_hyperfd.platform.platform import OfflineResults, Platform
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state import experience
from nni_hyperfd.state.store import StateError, Store
from nni_hyperfd.state.versions import Versions
from nni_hyperfd.task import TaskSettings
from nni_hyperfd.wire import Description, ReportError

SETS = 4


@pytest.fixture(scope="module")
def warm(make_lab, tmp_path_factory) -> Path:
    """A state of four made-up data sets, whose networks have learned nothing: what they know is not tested here."""
    space = SearchSpace.from_nni(make_lab.space)
    path = tmp_path_factory.mktemp("warm") / "warm.sqlite"
    begin_warm(path, space, make_lab, SETS)
    return path


def begin_warm(path, space, lab, sets):
    extractor = MetaFeatureExtractor.initial(12, seed=77)
    importance = {name: torch.ones_like(tensor) for name, tensor in extractor.state_dict().items()}
    data_sets = []
    for number in range(sets):
        configurations = space.sample(5, np.random.default_rng(number))
        images, counts = lab.dataset(number).image_features(20, 0), torch.tensor([20.0, 31.0])
        data_sets.append(
            OfflineResults(f"s{number}", images, counts, configurations, [*map(lab.score, configurations)])
        )
    platform = Platform(path)
    platform.begin_with(space, data_sets, WarmUp(extractor, MLPEncoder.initial(space.dim, 77), importance, []), 0)
    platform.store.close()


def content(path):
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def extractor_of(platform):
    with platform.store.read() as session:
        versions = Versions(platform.store, session)
        return weights.under(versions.extractor_tensors(versions.head().id), "extractor")


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
    monkeypatch.setattr(tuner, "WARM_STATE", warm)
    assert len(HyperFDTuner(state=str(lab.state)).platform.tasks()) == SETS
    assert HyperFDTuner(state=str(lab.folder / "cold.sqlite"), warm_start="none").platform.tasks() == []
    named = HyperFDTuner(state=str(lab.folder / "named.sqlite"), warm_start=str(warm))
    assert len(named.platform.tasks()) == SETS


@pytest.mark.parametrize("name", ["hpo", "proxylessnas"])
def test_the_package_brings_a_small_warm_up_of_the_papers_spaces(lab, name):
    assert tuner.WARM_STATE.stat().st_size < 5_000_000
    space = json.loads((Path(__file__).parents[2] / "search_spaces" / f"{name}.json").read_text())
    own = lab.tuner("mine", space=space, warm_start="default")
    past = own.platform.tasks()[:-1]
    assert past and all(map(experience.is_offline, past))
    signature = own.platform.tasks()[-1].space_signature
    assert sum(task.space_signature == signature for task in past) > 10
    lab.step(own, lab.dataset(1, feature_dim=84))  # 80 channels and a box, as the detector in trial_code/weights has
    task = own.platform.tasks()[-1]
    assert len(task.meta_feature) == 64 and task.extractor_id == past[0].extractor_id


@pytest.mark.parametrize("value", ["", "hot", "relative.sqlite", 3, None, True, "/no/such/file", "~"])
def test_a_wrong_warm_start_is_named_and_no_state_is_made(lab, value):
    with pytest.raises(ClassArgsError, match="classArgs: warm_start: "):
        HyperFDTuner(state=str(lab.state), warm_start=value)
    assert not lab.state.exists()


# -- beside users' tasks ----------------------------------------------------------------------------------------------


def test_the_first_task_starts_from_the_warm_up(lab, warm):
    own = lab.tuner("mine", budget=3, warm_start=str(warm))
    lab.run(own)
    task = own.platform.tasks()[-1]
    assert task.experiment == "mine" and task.closed is not None and len(task.meta_feature) == 64
    assert own.platform.counts() == {"extractor versions": 3, "ranker versions": 2, "offline data sets": SETS}
    ranking = own.platform.rank(SearchSpace.from_nni(lab.space), task.id, TaskSettings())
    assert sorted(other.task_id for other in ranking.neighbours) == [1, 2, 3, 4, 5]


def test_the_warm_up_only_fills_what_users_tasks_leave_free(lab):
    platform, space = Platform(lab.state), SearchSpace.from_nni(lab.space)
    own = [platform.open_task(f"own {n}", space, TaskSettings(service=False)) for n in range(MOST_TASKS + 3)]
    warm_ids = [platform.open_task(f"warm {n}", space, TaskSettings(service=False, offline=True)) for n in range(40)]

    def drawn(ids):
        with platform.store.read() as session:
            return [task.id for task in experience.drawn_tasks(session, ids, np.random.default_rng(0))]

    few = drawn([*own[:5], *warm_ids])
    assert few[:5] == own[:5] and len(set(few)) == MOST_TASKS and set(few[5:]) < set(warm_ids)
    assert set(drawn([*own, *warm_ids])) < set(own) and own[-1] in drawn([*own, *warm_ids])
    assert drawn([*own, *warm_ids]) == drawn(own), "the warm-up changes nothing where there is no room for it"
    assert len(drawn(warm_ids)) == MOST_TASKS


def test_the_encoder_learns_from_the_warm_up_as_offline(lab, warm, monkeypatch):
    from nni_hyperfd.method import learning

    kinds, update_encoder = [], learning.update_encoder

    def watch(encoder, current, past, offline, settings, seed):
        kinds.append((len(past), len(offline)))
        return update_encoder(encoder, current, past, offline, settings, seed)

    monkeypatch.setattr(learning, "update_encoder", watch)
    for number in range(2):
        lab.run(lab.tuner(f"mine {number}", budget=2, warm_start=str(warm)), lab.dataset(number))
    assert kinds == [(0, SETS), (1, SETS)]


def test_replay_holds_clients_meta_features_only(lab, warm):
    for number, expected in enumerate([None, 1]):
        own = lab.tuner(f"mine {number}", budget=2, warm_start=str(warm), replay="meta-features")
        while (job := own.ask(own.next_parameter_id())).parameters.get("phase") != "learn":
            parameter_id = own.next_parameter_id() - 1
            if job.service:
                for value in lab.serve(job, lab.dataset(number))[0]:
                    own.receive_intermediate(parameter_id, value)
            else:
                own.receive_trial_result(parameter_id, None, lab.score(job.parameters))
        given = weights.loads(own.platform.learn_job(own.task_id))
        assert ("replay" in given) == (expected is not None) and len(given.get("replay", [0])) == 1
        own.receive_intermediate(own.next_parameter_id() - 1, lab.serve(job, lab.dataset(number))[0][0])


def test_an_export_carries_the_mark(lab, warm):
    document = json.loads(json.dumps(Platform(warm).export()))
    other = Platform(lab.state)
    assert other.import_(document) == SETS
    assert all(experience.is_offline(task) and task.closed for task in other.tasks())
    assert other.counts()["ranker versions"] == 0, "they are learned from beside the first task, not as tasks"


# -- another detector -------------------------------------------------------------------------------------------------


def test_a_detector_of_another_width_starts_anew_and_keeps_the_results(lab, warm, caplog):
    own = lab.tuner("wide", budget=2, warm_start=str(warm))
    lab.run(own, lab.dataset(1, feature_dim=20))
    task = own.platform.tasks()[-1]
    assert [trial.status for trial in task.trials] == ["succeeded"] * 4 and len(task.meta_feature) == 64
    assert MetaFeatureExtractor.from_weights(extractor_of(own.platform)).feature_dim == 20
    past = own.platform.tasks()[:-1]
    assert [other.meta_feature for other in past] == [None] * SETS
    assert [len(other.trials) for other in past] == [5] * SETS
    assert own.platform.counts()["offline data sets"] == 0
    assert caplog.text.count("made with a detector of another width") == 1
    lab.run(lab.tuner("wide again", budget=2), lab.dataset(2, feature_dim=20))
    assert caplog.text.count("made with a detector of another width") == 1
    for preset in ("default", "paper"):
        ranking = own.platform.rank(SearchSpace.from_nni(lab.space), task.id, TaskSettings(preset=preset))
        assert {other.task_id for other in ranking.neighbours} <= {task.id, task.id + 1}


def test_where_users_have_described_their_data_the_error_stays(lab, warm):
    lab.run(lab.tuner("narrow", budget=1, warm_start=str(warm)))
    own = lab.tuner("wide", budget=1)
    job = own.ask(0)
    assert "may_start_anew" not in job.service
    with pytest.raises(ValueError, match="made for a detector with 8 channels"):
        lab.serve(job, lab.dataset(1, feature_dim=20))


def test_who_comes_second_does_not_take_the_extractor_from_the_first(lab, warm):
    own, other = lab.tuner("one", budget=1, warm_start=str(warm)), lab.tuner("other", budget=1)
    wide = lab.serve(own.ask(0), lab.dataset(1, feature_dim=20))[0][0]
    assert lab.step(other).parameters["phase"] == "extract"  # describes by the warm extractor
    own.receive_intermediate(0, wide)
    trial = own.platform.task(own.task_id).trials[0]
    assert trial.status == "failed" and "made for another detector" in trial.reason
    assert own.platform.counts()["offline data sets"] == SETS


def test_a_cold_state_never_offers_to_start_anew(lab):
    job = lab.tuner("cold").ask(0)
    assert job.service == {"phase": "extract", "weights": None}


def test_only_true_and_false_say_whether_the_extractor_is_the_initial_one():
    report = {"meta_feature": [0.0] * 64, "num_images": 1, "num_boxes": 1, "baseline": 0.5}
    assert [Description.from_report(report | extra).initial for extra in ({}, {"initial": True})] == [False, True]
    with pytest.raises(ReportError, match="initial: 1 is neither true nor false"):
        Description.from_report(report | {"initial": 1})
