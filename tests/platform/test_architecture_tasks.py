"""Whole tasks whose configurations are architectures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nni_hyperfd.space.architecture import FLOPS_LIMIT, PARAMETERS, Architecture
from nni_hyperfd.task import Phase, Preset, Status

SPACES = Path(__file__).resolve().parents[2] / "search_spaces"


@pytest.mark.slow
@pytest.mark.parametrize("preset", Preset)
@pytest.mark.parametrize("name", ["nas", "joint"])
def test_architectures_are_ranked_and_learned_from(lab, name: str, preset: Preset) -> None:
    file = {"nas": "proxylessnas", "joint": "joint"}[name]
    definition = json.loads((SPACES / f"{file}.json").read_text())
    for experiment in ("first", "second"):
        tuner = lab.tuner(experiment, definition, preset=str(preset))
        tried = lab.run(tuner, score=lambda parameters: Architecture.of(parameters).flops / FLOPS_LIMIT)
        task = tuner.platform.task(tuner.task_id)
        assert task.space.kind == name and task.closed is not None
        picks = [t for t in task.trials if t.phase is Phase.FINE_TUNE]
        assert len(picks) == 4 and all(t.status is Status.SUCCEEDED and 0 < t.performance < 1 for t in picks)
        assert [t.configuration for t in picks] == [p for p in tried if "phase" not in p]
    assert tuner.platform.counts()["encoder versions"] == 2


def test_an_imported_result_of_the_same_architecture_is_not_kept_twice(lab) -> None:
    tuner = lab.tuner("only", json.loads((SPACES / "proxylessnas.json").read_text()))
    smallest = {name: parameter.values[0] for name, parameter in PARAMETERS.items()}
    for kernel in (3, 5, 7):
        tuner.platform.add_experience(tuner.task_id, smallest | {"stage2_block3_kernel": kernel}, 0.5)
    assert [t.configuration for t in tuner.platform.task(tuner.task_id).trials if t.phase is Phase.IMPORT] == [smallest]
