from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import textwrap

import pytest

from nni_hyperfd.platform import Platform, RefusedError, own_datasets
from nni_hyperfd.space import SearchSpace, SpaceError
from nni_hyperfd.task import Phase, Preset, Status, TaskSettings
from nni_hyperfd.wire import Description
from support.own_datasets import packed

SPACE = {"x": {"_type": "choice", "_value": list(range(300))}}


def open_task(platform, experiment="e", **settings):
    return platform.open_task(experiment, SearchSpace.from_nni(SPACE), TaskSettings(**settings))


def test_opening_a_task_twice_is_going_on_with_it(lab):
    platform = Platform(lab.state)
    first = open_task(platform, seed=3)
    assert open_task(platform, seed=9) == first
    assert platform.task(first).settings.seed == 3
    assert open_task(platform, "other") != first
    assert [task.experiment for task in platform.tasks()] == ["e", "other"]


def test_a_search_space_must_leave_the_names_of_the_protocol_alone(lab):
    platform = Platform(lab.state)
    space = SearchSpace.from_nni(SPACE | {"phase": {"_type": "choice", "_value": ["a", "b"]}})
    with pytest.raises(SpaceError, match="the name 'phase' is taken by HyperFD's own trials; rename the parameter"):
        platform.open_task("e", space, TaskSettings())
    assert platform.tasks() == []


def test_a_description_is_kept_once(lab):
    platform = Platform(lab.state)
    task_id = open_task(platform)
    platform.start(platform.next_trial(task_id).id, 0)
    platform.describe(task_id, 0, Description([1.0] * 64, 2, 3, 0.5))
    platform.describe(task_id, 0, Description([9.0] * 64, 9, 9, 0.9))
    assert platform.task(task_id).meta_feature == (1.0,) * 64
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
    assert platform.counts()["encoder versions"] == 0


# -- looking ahead ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_tasks(make_lab, tmp_path_factory):
    """A state of two closed tasks and three data sets of the platform's own."""
    with pytest.MonkeyPatch.context() as patch:
        lab = make_lab(tmp_path_factory.mktemp("two"), patch)
        platform = Platform(lab.state)
        for number in range(3):
            own_datasets.add(platform, f"off{number}", packed(seed=number + 50))
        lab.run(lab.tuner("one", budget=2, preset="paper"))
        lab.run(lab.tuner("two", budget=2, preset="paper"), lab.dataset(2))
        return lab.content()


@pytest.mark.parametrize("preset", Preset)
def test_ranking_for_a_past_task_carries_its_meta_feature_over_from_its_own_version(lab, two_tasks, preset):
    lab.state.write_bytes(two_tasks)
    platform = Platform(lab.state)
    space, settings = SearchSpace.from_nni(lab.space), TaskSettings(candidates=30, preset=preset)
    assert [task.extractor_id for task in platform.tasks()] == [2, 3]
    for task_id in (1, 2):
        ranking = platform.rank(space, task_id, settings)
        nearest, other = ranking.neighbours
        assert nearest.task_id == task_id and nearest.distance == pytest.approx(0.0, abs=1e-5)
        assert other.distance > 1e-3
        assert (nearest.weight is None) == (preset is Preset.PAPER)
        assert [r.rank for r in ranking.recommendations] == list(range(1, 31))
        scores = [r.score for r in ranking.recommendations]
        assert scores == sorted(scores, reverse=True)
    assert platform.rank(space, None, settings).neighbours == []
    with pytest.raises(RefusedError, match="no task 77 with a meta-feature"):
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


@pytest.mark.slow
def test_two_processes_writing_at_once_lose_no_observation(lab):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=observe_all, args=(lab.state, number)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    for task in Platform(lab.state).tasks():
        number = int(task.experiment[1:])
        expected = [number + parameter_id / 1000 for parameter_id in range(OBSERVATIONS)]
        assert [t.performance for t in sorted(task.trials, key=lambda t: t.parameter_id)] == expected


def test_an_observation_is_durable_when_observe_returns(lab):
    code = textwrap.dedent("""
        import os, signal, sys
        from nni_hyperfd.platform import Platform
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
    assert [(t.status, t.performance) for t in trials] == [(Status.SUCCEEDED, 0.75), (Status.RUNNING, None)]
    platform.release(task_id, {(trials[1].id, 1)})
    assert [t.status for t in platform.task(task_id).trials] == [Status.SUCCEEDED, Status.PLANNED]
    assert all(trial.phase is Phase.FINE_TUNE for trial in platform.task(task_id).trials)
