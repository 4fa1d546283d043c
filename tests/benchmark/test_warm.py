from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
import typer

from nni_hyperfd.benchmark import warm
from nni_hyperfd.experiment import class_args
from nni_hyperfd.method import features, weights
from nni_hyperfd.platform.platform import Platform
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.task import TaskSettings


@pytest.fixture
def described(make_lab):
    images = make_lab.dataset(1, feature_dim=84).image_features(20, 0)
    return weights.dumps(features.pack(images, torch.tensor([20.0, 31.0])))


def test_picks_are_those_of_the_platforms_first_task_and_nothing_is_kept(lab):
    """The platform's own way through a task, on all configurations of a small space."""
    space, settings = SearchSpace.from_nni(lab.space), TaskSettings(budget=4, service=False)
    own = Platform(lab.state)
    task_id = own.open_task("whole way", space, settings)
    candidates = space.sample(settings.candidates, np.random.default_rng([settings.seed, task_id]))
    wanted = []
    for number in range(4):
        trial = own.next_trial(task_id)
        wanted.append(candidates.index(trial.configuration))
        own.start(trial.id, number)
        own.observe(task_id, number, lab.score(trial.configuration))
    other = Platform(lab.folder / "other.sqlite")
    performance = np.array([*map(lab.score, candidates)])
    assert warm.picks(other, space, candidates, performance, None, settings) == wanted
    assert other.tasks() == [] and asdict(settings)["budget"] == len(set(wanted))


def test_the_figure_comes_from_the_shipped_state_and_measurements(tmp_path, described, capsys):
    measured = class_args.WARM_STATE.parents[2] / "benchmark" / "measured_faces"
    before = class_args.WARM_STATE.read_bytes()
    with pytest.raises(typer.BadParameter, match="has no .safetensors file of any of wider, general, "):
        warm.main(measured, class_args.WARM_STATE, tmp_path, budget=2, seeds=1)
    for domain in ("facemask", "toon_dexter"):
        (tmp_path / f"{domain}.safetensors").write_bytes(described)
    warm.main(measured, class_args.WARM_STATE, tmp_path, budget=2, seeds=1)
    printed = capsys.readouterr().out
    assert "1 seeds" in printed and "±" in printed and "nan" not in printed
    assert "facemask" in printed and "fddb" not in printed  # nothing is known of its images
    assert class_args.WARM_STATE.read_bytes() == before
