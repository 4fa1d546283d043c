"""Trials that crash, report nonsense, or do not know our hook."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nni_hyperfd import Platform
from support.harness import Experiment

pytestmark = pytest.mark.nni

CRASHES, NAN, TWICE, SILENT, GOOD = 1, 2, 3, 4, 5


@pytest.fixture(scope="module")
def misbehaved(experiments: Callable[..., Experiment]) -> Experiment:
    trial = f"--crash {CRASHES} --nan {NAN} --twice {TWICE} --silent {SILENT}"
    return experiments({"budget": 5}, trial).create().wait_done()


def test_every_trial_is_kept_with_its_outcome(misbehaved: Experiment) -> None:
    jobs = {job["sequenceId"]: job for job in misbehaved.trial_jobs()}
    assert set(jobs) == {0, CRASHES, NAN, TWICE, SILENT, GOOD}  # extract and five picks
    rows = {trial.parameter_id: trial for trial in misbehaved.task().trials}
    row = {number: rows[job["record"]["parameter_id"]] for number, job in jobs.items()}
    assert [row[n].status for n in (CRASHES, NAN, SILENT)] == ["failed"] * 3
    assert [row[n].performance for n in (CRASHES, NAN, SILENT)] == [None] * 3
    assert "failed" in row[CRASHES].reason
    assert "nan" in row[NAN].reason
    assert "without reporting" in row[SILENT].reason
    assert [row[n].status for n in (TWICE, GOOD)] == ["succeeded"] * 2
    assert [row[n].performance for n in (TWICE, GOOD)] == [jobs[n]["final"]["default"] for n in (TWICE, GOOD)]
    assert misbehaved.task().closed is not None


def test_a_crash_does_not_shift_the_parameters_of_later_trials(misbehaved: Experiment) -> None:
    misbehaved.check_same_everywhere()
    assert [entry["number"] for entry in sorted(misbehaved.began(), key=lambda e: e["number"])] == [2, 3, 4, 5]


@pytest.fixture(scope="module")
def unaware(experiments: Callable[..., Experiment]) -> dict[str, Experiment]:
    """Trials without our hook, and ones that use it but give it no data set; both at the same time."""
    started = {hook: experiments({"budget": 3}, f"--hook {hook}").create() for hook in ("none", "plain")}
    return {hook: experiment.wait_done() for hook, experiment in started.items()}


@pytest.mark.parametrize("hook", ["none", "plain"])
def test_trials_that_describe_no_data_set_run_to_the_end(unaware: dict[str, Experiment], hook: str) -> None:
    experiment = unaware[hook]
    jobs = experiment.trial_jobs()
    assert [job["status"] for job in jobs] == ["SUCCEEDED"] * 3
    assert all(job["final"]["phase"] == "fine-tune" for job in jobs)
    task = experiment.task()
    assert task.closed is not None and task.meta_feature is None
    assert [(t.phase, t.status) for t in task.trials] == [("fine-tune", "succeeded")] * 3
    assert sorted(t.performance for t in task.trials) == sorted(job["final"]["default"] for job in jobs)
    assert experiment.log("dispatcher").count("WARNING") == 1
    assert experiment.log("dispatcher").count("ranked without a meta-feature") == 1


def test_the_hook_puts_parameters_right_also_without_a_data_set(unaware: dict[str, Experiment]) -> None:
    unaware["plain"].check_same_everywhere()


@pytest.fixture(scope="module")
def hopeless(experiments: Callable[..., Experiment]) -> dict[str, Experiment]:
    """A user who has not named his data, and one whose trials all crash after the first."""
    unset = {"trialCommand": 'true "${NO_SUCH_DATA:?name the folder of your data set}"'}
    started = {
        "description": experiments({"budget": 2}, **unset).create(),
        "all": experiments({"budget": 2}, "--crash 1 2").create(),
    }
    for experiment in started.values():
        experiment.wait_for("status ERROR", lambda experiment=experiment: experiment.status() == "ERROR")
    return started


def test_a_failed_description_ends_the_experiment_with_the_trials_own_sentence(hopeless: dict[str, Experiment]) -> None:
    experiment = hopeless["description"]
    (error,) = experiment.errors()
    assert "the trial that describes the data set has failed: no_such_data: name the folder of your data set" in error
    assert len(experiment.trial_jobs()) == 1
    assert "get_next_parameter(dataset)" not in experiment.log("dispatcher"), "that is not what is wrong"


def test_an_experiment_of_failures_ends_as_one(hopeless: dict[str, Experiment]) -> None:
    (error,) = hopeless["all"].errors()
    assert "all trials that tried a configuration have failed" in error
    assert len(hopeless["all"].trial_jobs()) == 3


def test_neither_leaves_a_task_in_the_state(hopeless: dict[str, Experiment]) -> None:
    assert all(Platform(experiment.state).tasks() == [] for experiment in hopeless.values())
