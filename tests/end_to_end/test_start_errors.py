"""What is wrong at the start ends the experiment with a reason that its user sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.harness import Experiment

pytestmark = pytest.mark.nni

DAMAGED = b"SQLite format 3\0" + 4000 * b"\xa5"
CASES: dict[str, dict[str, Any]] = {
    # class_args and config of the experiment; what the user has to be told, in small letters as NNI does
    "unknown argument": {"class_args": {"budgets": 3}, "told": ["classargs: budgets: no such argument"]},
    "bad budget": {"class_args": {"budget": 0}, "told": ["classargs: budget: 0 is no whole number from 1 up"]},
    "too few trials": {
        "class_args": {"budget": 3},
        "maxTrialNumber": 3,
        "told": ["maxtrialnumber is 3", "a budget of 3 needs 4 trials", "raise maxtrialnumber or leave it out"],
    },
    "space that cannot be encoded": {
        "class_args": {"budget": 1},
        "space": {"depth": {"_type": "normal", "_value": [0, 1]}},
        "told": ["search space", "cannot encode 'depth' of type 'normal'"],
    },
    "damaged state": {"class_args": {"budget": 1}, "told": ["state.sqlite", "no state; restore it from a backup"]},
}


@pytest.fixture(scope="module")
def failed(experiments: Callable[..., Experiment]) -> dict[str, Experiment]:
    """All cases; they wait for their error side by side."""
    started = {}
    for name, case in CASES.items():
        options = {key: value for key, value in case.items() if key != "told"}
        experiment = started[name] = experiments(options.pop("class_args"), **options)
        if name == "damaged state":
            experiment.state.write_bytes(DAMAGED)
        experiment.create()
    return started


@pytest.mark.parametrize("case", CASES)
def test_the_reason_is_shown(failed: dict[str, Experiment], case: str) -> None:
    experiment = failed[case]
    experiment.wait_for("status ERROR", lambda: experiment.status() == "ERROR")
    error = experiment.errors()[0]  # the web UI shows the first one
    for part in CASES[case]["told"]:
        assert part in error, error
    # It carried the message; 'nnictl resume' needs the right one.
    duration = lambda: experiment.rest("/experiment")["params"]["maxExperimentDuration"]  # noqa: E731
    experiment.wait_for("maxExperimentDuration as it was", lambda: duration() == "10m")
    assert experiment.trial_jobs() == []


def test_nnictl_status_prints_the_reason(failed: dict[str, Experiment]) -> None:
    experiment = failed["bad budget"]
    assert "budget: 0 is no whole number from 1 up" in experiment.nnictl("experiment", "status", experiment.id)


def test_the_dispatchers_log_has_the_whole_story(failed: dict[str, Experiment]) -> None:
    log = failed["bad budget"].log("dispatcher")
    assert "ClassArgsError: classArgs: budget: 0" in log and "Traceback" in log


def test_a_damaged_state_is_left_as_it_was(failed: dict[str, Experiment]) -> None:
    state: Path = failed["damaged state"].state
    assert state.read_bytes() == DAMAGED
