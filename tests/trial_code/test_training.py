"""Runs: same seed same answer, what is reported, what is saved, and what ends them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import safetensors.torch
import torch
from retinaface.parameters import apply_parameters
from retinaface.training import Outcome, build_runner, train, use_split, validate


def run(job, splits, work_dir: Path, reported: list[float] | None = None, **parameters) -> Outcome:
    config = apply_parameters(job.load_config(), parameters)
    return train(config, *splits, work_dir, report=(reported if reported is not None else []).append)


def test_same_seed_same_ap_and_weights(job, splits, tmp_path: Path) -> None:
    weights, reports = [], []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        reports.append([])
        outcome = run(dataclasses.replace(job, seed=seed), splits, tmp_path / name, reports[-1], optimizer="Adam")
        assert outcome.epochs == len(reports[-1]) == 1
        weights.append(safetensors.torch.load_file(outcome.detector))
    assert reports[0] == reports[1]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_the_detector_of_the_best_validation_is_saved(job, splits, tmp_path: Path) -> None:
    """Validated again it has the AP that was reported as best; training has changed it."""
    reported: list[float] = []
    job = dataclasses.replace(job, epochs=4, val_interval=2)
    outcome = run(job, splits, tmp_path, reported, optimizer="Adam", learning_rate=3e-3)
    assert len(reported) == 2 and outcome.best == max(reported) and outcome.epochs == 4 and outcome.seconds > 0
    tuned = dataclasses.replace(job, weights=str(outcome.detector))
    assert validate(tuned.load_config(), splits[1]) == pytest.approx(outcome.best, abs=1e-6)
    start, end = (safetensors.torch.load_file(path) for path in (job.weights, outcome.detector))
    assert not torch.equal(start["neck.laterals.0.conv.weight"], end["neck.laterals.0.conv.weight"])


def test_last_epoch_is_validated_whatever_the_interval(job, splits, tmp_path: Path) -> None:
    reported: list[float] = []
    run(dataclasses.replace(job, epochs=1, val_interval=10), splits, tmp_path, reported)
    assert len(reported) == 1


def test_invalid_loss_ends_the_run(job, splits, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"the loss became (nan|inf) in step \d+ \(epoch 1\) at learning rate"):
        run(job, splits, tmp_path, learning_rate=1e30)


def test_stagnation_stops_the_run(job, splits, tmp_path: Path) -> None:
    """The paper's rule, here with a patience of 2: an AP that stays at 0 has not risen."""
    config = apply_parameters(dataclasses.replace(job, epochs=9).load_config(), {})
    (plateau,) = config.param_scheduler
    (stopping,) = [hook for hook in config.custom_hooks if hook.type == "EarlyStoppingHook"]
    assert (stopping.patience, plateau.patience, plateau.factor) == (8, 5, 0.1)
    stopping.patience = 2
    config.model.test_cfg.score_thr = 2.0  # no detection is that sure
    reported: list[float] = []
    outcome = train(config, *splits, tmp_path, report=reported.append)
    assert reported == [0.0] * 3 and outcome.epochs == 3 and outcome.best == 0


def test_a_stopped_run_resumes_from_its_checkpoint(job, splits, tmp_path: Path) -> None:
    """mmengine's resume, which reads its own message hub from the file: same end as without the stop."""
    ends = []
    for name, epochs in (("whole", (2,)), ("parts", (1, 2))):
        for part, last in enumerate(epochs):
            config = apply_parameters(dataclasses.replace(job, epochs=last).load_config(), {})
            use_split(config.train_dataloader, splits[0], tmp_path / name)
            use_split(config.val_dataloader, splits[1], tmp_path / name)
            config.default_hooks.checkpoint.update(interval=1)
            config.resume = part > 0
            runner = build_runner(config, tmp_path / name)
            runner.train()
            assert runner.epoch == last
        ends.append(runner.message_hub.get_scalar("val/face/ap50").data[0])
    assert len(ends[1]) == len(ends[0]) == 2
    assert ends[1][0] == ends[0][0]
