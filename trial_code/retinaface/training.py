"""Runs of mmengine's Runner: training with validations, and one validation alone."""

from __future__ import annotations

import copy
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner

    from nni_hyperfd.datasets.coco import CocoSplit

TRAINING_ONLY = ("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler", "custom_hooks")


@dataclass(frozen=True)
class Outcome:
    """best: highest AP@50 of all validations, in [0, 1]; detector: safetensors file with the weights that had it."""

    best: float
    epochs: int
    seconds: float
    detector: Path


def train(
    config: Config, train: CocoSplit, val: CocoSplit, work_dir: Path, report: Callable[[float], None] = lambda ap: None
) -> Outcome:
    """Train the config's detector, reporting the AP@50 of each validation.

    Everything is written below `work_dir`. Raises FloatingPointError when the loss becomes invalid.
    """
    from retinaface.convert import save_detector
    from retinaface.hooks import ReportAP

    started = time.monotonic()
    use_split(config.train_dataloader, train, work_dir)
    use_split(config.val_dataloader, val, work_dir)
    runner = build_runner(config, work_dir)
    reporter = ReportAP(report)
    runner.register_hook(reporter)
    runner.train()
    runner.load_checkpoint(runner.message_hub.get_info("best_ckpt"))
    save_detector(runner.model, detector := work_dir / "detector.safetensors")
    return Outcome(max(reporter.values), runner.epoch, time.monotonic() - started, detector)


def validate(config: Config, val: CocoSplit) -> float:
    """AP@50 of the config's detector with the weights that it names."""
    config = copy.deepcopy(config)
    for key in TRAINING_ONLY:
        config.pop(key, None)
    config.default_hooks.checkpoint = None
    with TemporaryDirectory() as folder:
        use_split(config.val_dataloader, val, Path(folder))
        runner = build_runner(config, Path(folder))
        runner.model.init_weights()
        return runner.val()["face/ap50"]


def build_runner(config: Config, work_dir: Path) -> Runner:
    """mmengine's Runner, with everything registered that the configs name."""
    # Without it cuBLAS has no deterministic algorithm to choose.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    from mmengine.runner import Runner

    from retinaface import modules  # noqa: F401

    # Runners of one name share their message hub, and the default name is the second they were built in.
    return Runner.from_cfg(type(config)({**config, "work_dir": str(work_dir), "experiment_name": uuid.uuid4().hex}))


def use_split(dataloader: Config, split: CocoSplit, work_dir: Path) -> None:
    """Write a checked split below `work_dir` and have the data loader read it."""
    work_dir.mkdir(parents=True, exist_ok=True)
    path = work_dir / f"{split.split}.json"
    split.write(path)
    dataloader.dataset.ann_file = str(path.resolve())
