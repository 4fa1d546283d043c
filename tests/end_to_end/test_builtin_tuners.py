"""The search spaces with architectures under NNI's own tuners, which know nothing of FLOPs or of inactive blocks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest

from nni_hyperfd.space import SearchSpace, SpaceError
from nni_hyperfd.space.architecture import FLOPS_LIMIT, Architecture
from support import ROOT
from support.harness import Experiment

pytestmark = pytest.mark.nni

SPACES = {"Random": "proxylessnas", "TPE": "joint"}
TRIALS = 2  # with seed 0, one of each outcome


@pytest.fixture(scope="module")
def ended(experiments: Callable[..., Experiment]) -> dict[str, Experiment]:
    made = {}
    for tuner, space in SPACES.items():
        definition = json.loads((ROOT / "search_spaces" / f"{space}.json").read_text())
        made[tuner] = experiments({}, space=definition, maxTrialNumber=TRIALS)
        made[tuner].configure(
            tuner={"name": tuner, "classArgs": {"seed": 0}}, trialCommand=f"{sys.executable} architecture_trial.py"
        )
        made[tuner].create()
    return {tuner: experiment.wait_done() for tuner, experiment in made.items()}


@pytest.mark.parametrize("tuner", SPACES)
def test_a_trial_reads_what_the_tuner_proposes_or_fails_over_the_limit(
    ended: dict[str, Experiment], tuner: str
) -> None:
    space = SearchSpace.from_nni(json.loads((ended[tuner].folder / "space.json").read_text()))
    jobs = ended[tuner].trial_jobs()
    assert sorted(job["status"] for job in jobs) == ["FAILED", "SUCCEEDED"]
    for job in jobs:
        parameters = job["record"]["parameters"]
        if job["status"] == "SUCCEEDED":
            canonical = space.canonical(parameters)
            architecture = Architecture.of(canonical)
            assert job["final"] == {"default": architecture.flops / 1e6, "blocks": sum(map(len, architecture.stages))}
            assert architecture.flops < FLOPS_LIMIT
        else:
            with pytest.raises(SpaceError, match="the space has those below 730 M"):
                space.canonical(parameters)
