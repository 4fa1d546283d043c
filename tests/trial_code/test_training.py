"""Runs: same seed same answer, what is reported, what is saved, what ends them, and how they go on."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from mmdet.registry import HOOKS, METRICS
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from retinaface.options import ScriptError
from retinaface.parameters import apply_parameters
from retinaface.pipelines import use_split
from retinaface.ranks import run_on
from retinaface.runs import Outcome
from retinaface.training import train, validate


def run(options, splits, work_dir: Path, reported: list[float] | None = None, **parameters) -> Outcome:
    config = apply_parameters(options.load_config(), parameters)
    return train(config, *splits, work_dir, report=(reported if reported is not None else []).append)


@METRICS.register_module()
class ScriptedAP(BaseMetric):
    """Gives out AP values that were laid down before."""

    default_prefix = "face"
    script: Iterator[float]

    def process(self, data_batch: dict, data_samples: list[dict]) -> None:
        self.results.extend(data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        return {"ap50": next(ScriptedAP.script)}


@HOOKS.register_module()
class RecordRates(Hook):
    """The learning rate of each epoch."""

    rates: list[float]

    def before_train_epoch(self, runner) -> None:
        RecordRates.rates.append(runner.optim_wrapper.get_lr()["lr"][0])


def scripted(options, values: Iterable[float], *, epochs: int = 50):
    """The config of a run of short epochs whose validations have these APs."""
    config = apply_parameters(dataclasses.replace(options, epochs=epochs).load_config(), {})
    config.val_evaluator = {"type": "ScriptedAP"}
    config.custom_hooks.append({"type": "RecordRates"})
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.dataset.indices = 2
    ScriptedAP.script = iter(values)
    RecordRates.rates = []
    return config


def hook_of(config, kind: str):
    (found,) = [hook for hook in config.custom_hooks if hook["type"] == kind]
    return found


def test_same_seed_same_ap_and_weights(options, splits, tmp_path: Path) -> None:
    weights, reports = [], []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        reports.append([])
        outcome = run(dataclasses.replace(options, seed=seed), splits, tmp_path / name, reports[-1], optimizer="Adam")
        assert outcome.epochs == len(reports[-1]) == 1
        weights.append(safetensors.torch.load_file(outcome.detector))
    assert reports[0] == reports[1]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_the_detector_of_the_best_validation_is_saved(options, splits, tmp_path: Path) -> None:
    """Validated again it has the AP that was reported as best; training has changed it."""
    reported: list[float] = []
    options = dataclasses.replace(options, epochs=4, val_interval=2)
    outcome = run(options, splits, tmp_path, reported, optimizer="Adam", learning_rate=3e-3)
    assert len(reported) == 2 and outcome.best == max(reported) and outcome.epochs == 4 and outcome.seconds > 0
    tuned = dataclasses.replace(options, weights=str(outcome.detector))
    assert validate(tuned.load_config(), splits[1]) == pytest.approx(outcome.best, abs=1e-6)
    start, end = (safetensors.torch.load_file(path) for path in (options.weights, outcome.detector))
    assert not torch.equal(start["neck.laterals.0.conv.weight"], end["neck.laterals.0.conv.weight"])


def test_last_epoch_is_validated_whatever_the_interval(options, splits, tmp_path: Path) -> None:
    reported: list[float] = []
    run(dataclasses.replace(options, epochs=1, val_interval=10), splits, tmp_path, reported)
    assert len(reported) == 1


def test_invalid_loss_ends_the_run(options, splits, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"the loss became (nan|inf) in step \d+ \(epoch 1\) at learning rate"):
        run(options, splits, tmp_path, learning_rate=1e30)


def test_the_papers_schedule_counts_validations(options, splits, tmp_path: Path, capsys) -> None:
    """Rate / 10 after the fifth validation without a rise, the end after the eighth; a line for each."""
    config = scripted(options, [0.1, 0.2, 0.3, *[0.3, 0.25] * 10])
    reported: list[float] = []
    outcome = train(config, *splits, tmp_path, report=reported.append)
    assert reported == [0.1, 0.2, 0.3, *[0.3, 0.25] * 4]
    assert outcome.epochs == 11 and outcome.best == 0.3
    assert RecordRates.rates == [pytest.approx(1e-3)] * 8 + [pytest.approx(1e-4)] * 3
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 11
    assert re.fullmatch(
        r"epoch 9/50: AP@50 0\.2500 \(best 0\.3000\), loss \d+\.\d+, lr 0\.0001, \d+\.\d images/s,"
        r" at most \d:\d\d:\d\d left",
        lines[8],
    ), lines[8]


@pytest.mark.parametrize(("seconds", "epochs"), [(0.0, (5, 6)), (1e9, (4, 6))])
def test_files_that_a_run_leaves(options, splits, tmp_path: Path, seconds: float, epochs: tuple[int, int]) -> None:
    """The last two checkpoints, of validated epochs only where the others follow fast, and the best validated one."""
    config = scripted(dataclasses.replace(options, val_interval=2), [0.1, 0.4, 0.2], epochs=6)
    config.default_hooks.checkpoint.seconds = seconds
    train(config, *splits, tmp_path)
    names = sorted(path.name for path in tmp_path.glob("*.pth"))
    assert names == ["best_face_ap50_epoch_4.pth", *(f"epoch_{epoch}.pth" for epoch in epochs)]
    saved = torch.load(tmp_path / f"epoch_{epochs[0]}.pth")
    assert saved["meta"]["epoch"] == epochs[0] and saved["message_hub"]["runtime_info"]["best_score"] == 0.4


class Killed(BaseException):
    """Nothing in the run catches it."""


def kill_at(*validations: int):
    """A `report` that ends the run while these of its calls are made, before anything is saved after them."""
    calls: list[float] = []

    def report(ap: float) -> None:
        calls.append(ap)
        if len(calls) in validations:
            raise Killed

    return report


def test_a_killed_run_goes_on_with_its_counts(options, splits, tmp_path: Path, capsys) -> None:
    """Killed in the validations of epochs 3 and 4, it repeats those epochs and ends as one that was not killed."""
    settings = {"values": [0.1, 0.3, *[0.2] * 20]}

    def prepared():
        config = scripted(options, settings["values"])
        hook_of(config, "ResumableEarlyStopping").patience = 4
        config.param_scheduler[0].patience = 1
        return config

    whole = train(prepared(), *splits, tmp_path / "whole")
    rates = RecordRates.rates
    assert whole.epochs == 6 and rates == [pytest.approx(rate) for rate in [1e-3] * 4 + [1e-4] * 2]

    config = prepared()
    report = kill_at(3, 5)
    for place in ([], ["epoch_2.pth"], ["epoch_3.pth"]):
        try:
            killed = train(config, *splits, tmp_path / "killed", report=report)
        except Killed:
            killed = None
        assert re.findall(r"going on from .*/(.*)", capsys.readouterr().out) == place
    assert (killed.best, killed.epochs) == (whole.best, whole.epochs)
    assert RecordRates.rates == rates[:3] + rates[2:4] + rates[3:]
    best = torch.load(tmp_path / "killed" / "best_face_ap50_epoch_2.pth")["state_dict"]
    saved = safetensors.torch.load_file(killed.detector)
    assert all(torch.equal(saved[name], tensor) for name, tensor in best.items())

    # What has ended stays so: the answer comes from the files.
    again = train(config, *splits, tmp_path / "killed")
    assert (again.best, again.epochs) == (killed.best, killed.epochs) and len(RecordRates.rates) == 8


def test_another_run_in_the_same_folder_starts_anew(options, splits, tmp_path: Path, capsys) -> None:
    for rate in (1e-3, 3e-3):
        reported: list[float] = []
        run(options, splits, tmp_path, reported, learning_rate=rate)
        assert len(reported) == 1
    assert "going on" not in capsys.readouterr().out


@HOOKS.register_module()
class FullMemory(Hook):
    """Fails as a GPU does whose memory is full."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def before_train_iter(self, *_, **__) -> None:
        if self.stage == "train":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def before_val_iter(self, *_, **__) -> None:
        if self.stage == "val":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("train", "out of memory training at batch size 4 and 64 pixels; lower --batch-size or --size"),
        ("val", "out of memory validating at batch size 8 and 96 pixels; lower --eval-size"),
    ],
)
def test_full_gpu_memory_names_the_sizes(options, splits, tmp_path: Path, stage: str, message: str) -> None:
    config = apply_parameters(options.load_config(), {})
    config.custom_hooks.append({"type": "FullMemory", "stage": stage})
    with pytest.raises(ScriptError, match=message):
        train(config, *splits, tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("changes", [{"gpus": 2}, {"amp": True}], ids=str)
def test_gpus_that_are_not_there(options, changes: dict) -> None:
    with pytest.raises(ScriptError, match=r"--(gpus 2|amp) needs \d GPUs?, torch finds 0 here"):
        dataclasses.replace(options, **changes).load_config()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="mixed precision needs a GPU")
def test_mixed_precision_trains(options, splits, tmp_path: Path) -> None:
    assert run(dataclasses.replace(options, amp=True), splits, tmp_path).epochs == 1


@pytest.mark.long
def test_two_processes_share_a_batch(options, splits, tmp_path: Path) -> None:
    """On this machine's processor, in place of two GPUs: one AP a validation, of all images, and one detector."""
    config = apply_parameters(dataclasses.replace(options, epochs=2).load_config(), {})
    config.model_wrapper_cfg = {"type": "MMDistributedDataParallel", "device_ids": None, "broadcast_buffers": False}
    use_split(config.train_dataloader, splits[0], tmp_path)
    use_split(config.val_dataloader, splits[1], tmp_path)
    with pytest.raises(ScriptError, match="a batch of 4 cannot be shared by 3 GPUs"):
        run_on(3, config, tmp_path, print)
    reported: list[float] = []
    outcome = run_on(2, copy.deepcopy(config), tmp_path, reported.append)
    assert len(reported) == outcome.epochs == 2 and outcome.best == max(reported)
    tuned = dataclasses.replace(options, weights=str(outcome.detector))
    assert validate(tuned.load_config(), splits[1]) == pytest.approx(outcome.best, abs=1e-6)
    config.optim_wrapper.optimizer.lr = 1e30
    with pytest.raises(ScriptError, match="FloatingPointError: the loss became .* lower the learning rate"):
        run_on(2, config, tmp_path, reported.append)
