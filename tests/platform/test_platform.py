from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

from nni_hyperfd.method import features, weights
from nni_hyperfd.platform.platform import Platform
from nni_hyperfd.space import SearchSpace, SpaceError
from nni_hyperfd.state.versions import Versions
from nni_hyperfd.task import PRESETS, TaskSettings
from nni_hyperfd.wire import Description, ReportError

SPACE = {"x": {"_type": "choice", "_value": list(range(300))}}


def open_task(platform, experiment="e", **settings):
    return platform.open_task(experiment, SearchSpace.from_nni(SPACE), TaskSettings(**settings))


def offline_bytes(dim=12, count=20, counts=(20.0, 31.0), seed=0):
    images = torch.randn(count, 3, 3, dim, generator=torch.Generator().manual_seed(seed))
    return weights.dumps(features.pack(images, torch.tensor(counts)))


def test_opening_a_task_twice_is_going_on_with_it(lab):
    platform = Platform(lab.state)
    first = open_task(platform, seed=3)
    assert open_task(platform, seed=9) == first
    assert platform.task(first).settings["seed"] == 3
    assert open_task(platform, "other") != first
    assert [task.experiment for task in platform.tasks()] == ["e", "other"]


def test_a_description_is_kept_once(lab):
    platform = Platform(lab.state)
    task_id = open_task(platform)
    platform.start(platform.next_trial(task_id).id, 0)
    platform.describe(task_id, 0, Description([1.0] * 64, 2, 3, 0.5))
    platform.describe(task_id, 0, Description([9.0] * 64, 9, 9, 0.9))
    assert platform.task(task_id).meta_feature == [1.0] * 64
    assert platform.task(task_id).num_images == 2


def test_experience_outside_the_space_is_refused(lab):
    platform = Platform(lab.state)
    task_id = open_task(platform)
    with pytest.raises(SpaceError, match="x: 300 is none of"):
        platform.add_experience(task_id, {"x": 300}, 0.5)
    assert len(platform.task(task_id).trials) == 1


def test_a_plain_task_without_any_result_closes_and_learns_nothing(lab):
    platform = Platform(lab.state)
    task_id = open_task(platform, service=False, budget=2)
    for parameter_id in range(2):
        platform.start(platform.next_trial(task_id).id, parameter_id)
        platform.observe(task_id, parameter_id, None, "crashed")
    assert platform.next_trial(task_id) is None
    task = platform.task(task_id)
    assert task.closed is not None and [t.reason for t in task.trials] == ["crashed"] * 2
    assert platform.counts()["ranker versions"] == 0


# -- offline data sets ------------------------------------------------------------------------------------------------


def test_offline_data_sets_are_kept_by_name(lab):
    platform = Platform(lab.state)
    platform.add_offline("a", offline_bytes(seed=1))
    platform.add_offline("b", offline_bytes(seed=2))
    platform.add_offline("a", offline_bytes(seed=3))
    assert platform.counts()["offline data sets"] == 2


@pytest.mark.parametrize(
    "data, message",
    [
        (b"garbage", "offline data set bad: .*safetensors"),
        (weights.dumps({"features": torch.ones(2)}), "offline data set bad: .*lack present"),
        (offline_bytes(dim=9), "offline data set bad: its features have 9 entries, the ones in the state have 12"),
        (offline_bytes(count=0), "offline data set bad: .*images"),
        (offline_bytes(counts=(-5.0, 3.0)), "offline data set bad: .*out of range"),
    ],
    ids=["garbage", "other tensors", "another detector", "no images", "negative counts"],
)
def test_an_offline_data_set_that_would_break_a_later_task_is_refused(lab, data, message):
    platform = Platform(lab.state)
    platform.add_offline("good", offline_bytes())
    with pytest.raises(ReportError, match=message):
        platform.add_offline("bad", data)
    assert platform.counts()["offline data sets"] == 1


def test_an_offline_data_set_of_another_detector_than_the_clients_is_refused(lab):
    lab.run(lab.tuner("e", budget=2))
    platform = Platform(lab.state)
    with pytest.raises(ReportError, match="the detector it was made for"):
        platform.add_offline("bad", offline_bytes(dim=9))
    platform.add_offline("good", offline_bytes(dim=12))
    lab.run(lab.tuner("next", budget=2))
    assert platform.counts()["offline data sets"] == 1


def test_the_learn_job_holds_the_tasks_own_results_and_a_sample_of_the_offline_sets(lab):
    platform = Platform(lab.state)
    for number in range(10):
        platform.add_offline(f"set {number}", offline_bytes(count=40, seed=number))
    tuner = lab.tuner("e", budget=2)
    for _ in range(3):
        lab.step(tuner)
    sent = weights.loads(platform.learn_job(tuner.task_id))
    assert sent["performance"].shape == (2,) and sent["embeddings"].shape == (2, 64)
    assert sum(name.endswith(".present") for name in sent) == 8
    assert sent["offline.0.features"].shape == (16, 3, 3, 12)
    # Nothing of other clients: no other tensors, in particular no meta-features.
    assert {name.split(".")[0] for name in sent} == {"performance", "embeddings", "offline"}


def test_with_replay_the_learn_job_also_holds_past_meta_features_and_nothing_that_names_them(lab):
    platform = Platform(lab.state)
    for number in range(3):
        platform.add_offline(f"set {number}", offline_bytes(seed=number))
    for number in range(2):
        lab.run(lab.tuner(f"e{number}", budget=2), lab.dataset(number))
    tuner = lab.tuner("e", budget=2, replay="meta-features")
    for _ in range(3):
        lab.step(tuner, lab.dataset(2))
    sent = weights.loads(platform.learn_job(tuner.task_id))
    groups = {"performance", "embeddings", "offline", "extractor", "importance", "replay"}
    assert {name.split(".")[0] for name in sent} == groups
    with platform.store.write() as session:
        task = platform.task(tuner.task_id)
        carried = Versions(platform.store, session).meta_features(platform.tasks()[:2], task.extractor_id)
    rows = {tuple(row) for row in sent["replay"].tolist()}
    assert len(rows) == 2 and rows == {tuple(h.tolist()) for h in carried.values()}
    lab.run(tuner, lab.dataset(2))
    assert platform.task(tuner.task_id).extractor_id == 4


# -- looking ahead ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_ranking_for_a_past_task_carries_its_meta_feature_over_from_its_own_version(lab, preset):
    platform = Platform(lab.state)
    for number in range(3):
        platform.add_offline(f"off{number}", offline_bytes(seed=number + 50))
    lab.run(lab.tuner("one", budget=2))
    lab.run(lab.tuner("two", budget=2), lab.dataset(2))
    space, settings = SearchSpace.from_nni(lab.space), TaskSettings(candidates=30, preset=preset)
    assert [task.extractor_id for task in platform.tasks()] == [2, 3]
    for task_id in (1, 2):
        ranking = platform.rank(space, task_id, settings)
        nearest, other = ranking.neighbours
        assert nearest.task_id == task_id and nearest.distance == pytest.approx(0.0, abs=1e-5)
        assert other.distance > 1e-3
        assert (nearest.weight is None) == (preset == "paper")
        assert [r.rank for r in ranking.recommendations] == list(range(1, 31))
        scores = [r.score for r in ranking.recommendations]
        assert scores == sorted(scores, reverse=True)
    assert platform.rank(space, None, settings).neighbours == []
    with pytest.raises(ReportError, match="no task 77 with a meta-feature"):
        platform.rank(space, 77, settings)
    assert len(platform.tasks()) == 2, "nothing was started"


# -- several processes, sudden ends -----------------------------------------------------------------------------------

OBSERVATIONS = 25


def observe_all(path, number):
    platform = Platform(path)
    task_id = open_task(platform, f"e{number}", budget=OBSERVATIONS, service=False)
    for parameter_id in range(OBSERVATIONS):
        platform.start(platform.next_trial(task_id).id, parameter_id)
        platform.observe(task_id, parameter_id, number + parameter_id / 1000)


def test_two_processes_writing_at_once_lose_no_observation(lab):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=observe_all, args=(lab.state, number)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(200)
    assert [process.exitcode for process in processes] == [0, 0]
    for task in Platform(lab.state).tasks():
        number = int(task.experiment[1:])
        expected = [number + parameter_id / 1000 for parameter_id in range(OBSERVATIONS)]
        assert [t.performance for t in sorted(task.trials, key=lambda t: t.parameter_id)] == expected


def test_an_observation_is_durable_when_observe_returns(lab):
    code = textwrap.dedent("""
        import os, signal, sys
        from nni_hyperfd.platform.platform import Platform
        from nni_hyperfd.space import SearchSpace
        from nni_hyperfd.task import TaskSettings
        platform = Platform(sys.argv[1])
        space = SearchSpace.from_nni({"x": {"_type": "choice", "_value": list(range(300))}})
        task_id = platform.open_task("e", space, TaskSettings(service=False, budget=3))
        for parameter_id in range(2):
            platform.start(platform.next_trial(task_id).id, parameter_id)
        platform.observe(task_id, 0, 0.75)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert subprocess.run([sys.executable, "-c", code, str(lab.state)]).returncode == -signal.SIGKILL
    platform = Platform(lab.state)
    task_id = open_task(platform, service=False, budget=3)
    trials = platform.task(task_id).trials
    assert [(t.status, t.performance) for t in trials] == [("succeeded", 0.75), ("running", None)]
    platform.release(task_id, set())
    assert [t.status for t in platform.task(task_id).trials] == ["succeeded", "planned"]
