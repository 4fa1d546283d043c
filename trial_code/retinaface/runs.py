"""One training run in this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from mmengine.dist import is_main_process
from mmengine.model import is_model_wrapper

from retinaface.build import build_runner
from retinaface.hooks import Progress, ReportAP
from retinaface.options import ScriptError
from retinaface.pipelines import find_transform, find_transforms
from retinaface.weight_files import save_detector

if TYPE_CHECKING:
    from mmengine.config import Config


@dataclass(frozen=True)
class Outcome:
    """What a training run has reached.

    Attributes:
        best: highest AP@50 of all validations, in [0, 1].
        epochs: number of epochs, including those before an interruption.
        seconds: duration, without the time before an interruption.
        detector: safetensors file of the detector with the highest AP@50.
    """

    best: float
    epochs: int
    seconds: float
    detector: Path


def run(config: Config, work_dir: Path, report: Callable[[float], None]) -> Outcome:
    """Train the detector of a complete config; in a process group this is the part of one process.

    Args:
        config: config with annotation files in its data loaders.
        work_dir: folder for everything that is written.
        report: called with the AP@50 of each validation, in the main process only.

    Raises:
        FloatingPointError: the loss is NaN or infinite.
        ScriptError: the GPU has too little memory; the message names the sizes.
        WeightsError: the checkpoint to resume from is refused.
    """
    started = time.monotonic()
    runner = build_runner(config, work_dir)
    runner.register_hook(ReportAP(report))
    runner.register_hook(Progress())
    try:
        runner.train()
    except torch.OutOfMemoryError as error:
        raise ScriptError(_too_large(config, runner.model.training)) from error
    detector = work_dir / "detector.safetensors"
    if is_main_process():
        runner.load_checkpoint(runner.message_hub.get_info("best_ckpt"))
        save_detector(runner.model.module if is_model_wrapper(runner.model) else runner.model, detector)
    best = float(runner.message_hub.get_info("best_score"))
    return Outcome(best, runner.epoch, time.monotonic() - started, detector)


def _too_large(config: Config, training: bool) -> str:
    if training:
        loader, option = config.train_dataloader, "--batch-size or --size"
        side = find_transform(loader, "ResizeFaces").scale[0]
    else:
        loader, option = config.val_dataloader, "--eval-size"
        side = max(resize["scale"] for resize in find_transforms(loader, "ResizeShortestEdge"))
    kind = "training" if training else "validating"
    return f"the GPU ran out of memory {kind} at batch size {loader.batch_size} and {side} pixels; lower {option}."
