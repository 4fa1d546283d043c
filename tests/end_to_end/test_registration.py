"""`hyperfd register`, importing and exporting results, and HyperFD as a plain NNI tuner."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from support.harness import BIN, Experiment

pytestmark = pytest.mark.nni

IMPORTED = [
    {"parameter": {"x": 0, "kind": "a"}, "value": {"default": 0.5, "loss": 1.5}},
    {"parameter": {"x": 1, "kind": "b"}, "value": 0.55},
    {"parameter": {"x": 99, "kind": "b"}, "value": 0.7},
]


@pytest.fixture(scope="module")
def ended(experiments: Callable[..., Experiment]) -> dict[str, Experiment]:
    """Two experiments, which ran at the same time: `named`, whose tuner is named and into which results were imported
    during its first trial, and `plain`, with HyperFDTuner and no advisor."""
    named = experiments({}, "--hold {hold} --hold-service 0")
    arguments = {"state": str(named.state), "budget": 2, "warm_start": "none"}
    named.configure(tuner={"name": "HyperFD", "classArgs": arguments})
    named.run(BIN / "hyperfd", "register")
    named.create()
    plain = experiments({}, maxTrialNumber=2)
    arguments = {"state": str(plain.state), "budget": 2, "warm_start": "none"}
    tuner = {"codeDirectory": str(plain.folder), "className": "nni_hyperfd.HyperFDTuner", "classArgs": arguments}
    plain.configure(tuner=tuner)
    plain.create()
    named.wait_event("service", 0)
    (named.folder / "known.json").write_text(json.dumps(IMPORTED))
    named.nnictl("experiment", "import", named.id, "--filename", "known.json")
    named.wait_for("two imported results", lambda: len(imported(named)) == 2)
    named.go("all")
    return {"named": named.wait_done(), "plain": plain.wait_done()}


@pytest.fixture
def registered(ended: dict[str, Experiment]) -> Experiment:
    return ended["named"]


def imported(experiment: Experiment) -> list[tuple[dict, float]]:
    return [(t.configuration, t.performance) for t in experiment.task().trials if t.phase == "import"]


def test_hyperfd_runs_under_its_registered_name(registered: Experiment) -> None:
    assert registered.rest("/experiment")["params"]["tuner"]["name"] == "HyperFD"
    assert [t.status for t in registered.picks()] == ["succeeded"] * 2
    assert registered.task().closed is not None


def test_registering_changes_nothing_outside_of_the_home_folder(registered: Experiment) -> None:
    written = list(registered.home.rglob("registered_algorithms.yml"))
    assert len(written) == 1 and "nni_hyperfd.HyperFDAdvisor" in written[0].read_text()


def test_imported_results_are_experience_on_top_of_the_budget(registered: Experiment) -> None:
    assert imported(registered) == [({"x": 0, "kind": "a"}, 0.5), ({"x": 1, "kind": "b"}, 0.55)]
    known = [{"x": 0, "kind": "a"}, {"x": 1, "kind": "b"}]
    assert all(t.configuration not in known for t in registered.picks())


def test_an_imported_result_outside_of_the_space_is_warned_of(registered: Experiment) -> None:
    warnings = [line for line in registered.log("dispatcher").splitlines() if "WARNING" in line]
    assert len(warnings) == 1 and "left out" in warnings[0] and "99 is none of [0, 1, 2, 3, 4]" in warnings[0]


def test_nnictl_exports_what_was_run(registered: Experiment) -> None:
    registered.nnictl("experiment", "export", registered.id, "--type", "json", "--filename", "out.json")
    exported = json.loads((registered.folder / "out.json").read_text())
    results = {json.dumps(e["parameter"]): json.loads(e["value"])["default"] for e in exported}
    for pick in registered.picks():
        assert results[json.dumps(pick.configuration)] == pick.performance
    assert len(exported) == 3  # the picks and the extract trial; learn reports no result


def test_hyperfd_as_a_plain_tuner(ended: dict[str, Experiment]) -> None:
    plain = ended["plain"]
    assert [(t.phase, t.status) for t in plain.task().trials] == [("fine-tune", "succeeded")] * 2
    assert [job["status"] for job in plain.trial_jobs()] == ["SUCCEEDED"] * 2
    plain.check_same_everywhere()
    assert plain.errors() == []
