"""SIGKILL in the middle, then `nnictl resume`: nothing is lost, nothing runs twice that need not."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from support.harness import Experiment

pytestmark = pytest.mark.nni
BUDGET = 3


def status_of(experiment: Experiment, number: int) -> str | None:
    return next((job["status"] for job in experiment.trial_jobs() if job["sequenceId"] == number), None)


def check_nothing_lost(experiment: Experiment, *last: str) -> None:
    """After the picks there are service trials of these phases."""
    task = experiment.task()
    assert task.closed is not None
    assert {t.status for t in task.trials} == {"succeeded"}, [(t.phase, t.status) for t in task.trials]
    assert [t.phase for t in task.trials] == ["extract", *["fine-tune"] * BUDGET, *last]
    assert len({json.dumps(t.configuration) for t in experiment.picks()}) == BUDGET
    experiment.check_same_everywhere()
    ends = [json.dumps(entry["parameters"]) for entry in experiment.ran() if entry["event"] == "end"]
    assert len(set(ends)) == len(ends) == BUDGET, "a configuration was run to its end twice"


def test_the_manager_is_killed_while_trials_run(experiment: Callable[..., Experiment]) -> None:
    killed = experiment({"budget": BUDGET, "preset": "paper"}, "--hold {hold} --hold-service 4").create()
    killed.wait_event("begin", 1, 2)
    killed.go(1)
    killed.wait_event("end", 1)
    killed.wait_event("begin", 3)  # NNI has seen the end of 1; 2 and 3 hold
    killed.kill_manager()  # the held trials live on, and have nobody to report to
    first = {entry["number"]: entry["parameters"] for entry in killed.began()}

    killed.resume()
    killed.wait_for("trials 2 and 3 a second time", lambda: len(killed.began()) == 5)
    again = {entry["number"]: entry["parameters"] for entry in killed.began()[3:]}
    assert again == {2: first[2], 3: first[3]}
    killed.go(2, 3)

    # The learn job is not an ordinary trial: NNI runs it again without what we put beside its parameters.
    killed.wait_event("service", 4)
    killed.processes.kill_all()  # as when the machine goes down
    killed.resume()
    killed.go("all")
    killed.wait_done()
    check_nothing_lost(killed, "learn")


def test_the_dispatcher_is_killed_while_trials_run(experiment: Callable[..., Experiment]) -> None:
    killed = experiment({"budget": BUDGET}, "--hold {hold}").create()
    killed.wait_event("begin", 1, 2)
    killed.kill_dispatcher()
    killed.go(1)  # its result reaches the manager, and nobody else
    killed.wait_for("the end of trial 1", lambda: status_of(killed, 1) == "SUCCEEDED")
    killed.stop()
    assert status_in_state(killed) == ["succeeded", "running", "running"]

    killed.resume()
    killed.go("all")
    killed.wait_done()
    check_nothing_lost(killed)


def status_in_state(experiment: Experiment) -> list[str]:
    return [trial.status for trial in experiment.task().trials]
