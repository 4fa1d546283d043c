"""Runs of mmengine's Runner: training with validations, and one evaluation alone."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from retinaface.job import JobError
from retinaface.pipelines import find_transform, find_transforms

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner

    from nni_hyperfd.datasets.coco import CocoSplit

TRAINING_ONLY = ("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler", "custom_hooks")
RUN_FILE = "run.sha256"


@dataclass(frozen=True)
class Outcome:
    """best: highest AP@50 of all validations, in [0, 1]; detector: safetensors file with the weights that had it.

    A resumed run's `epochs` and `best` are those of the whole run, its `seconds` those since it was resumed.
    """

    best: float
    epochs: int
    seconds: float
    detector: Path


def train(
    config: Config,
    train: CocoSplit,
    val: CocoSplit,
    work_dir: Path,
    report: Callable[[float], None] = lambda ap: None,
    gpus: int = 1,
) -> Outcome:
    """Train the config's detector, reporting the AP@50 of each validation.

    Everything is written below `work_dir`. Where an interrupted run of the same config, weights and annotations has
    left a checkpoint there, it goes on from that; what another run has left is overwritten. Raises FloatingPointError
    when the loss becomes invalid, and JobError naming the sizes when the GPU's memory is too small.
    """
    config = copy.deepcopy(config)
    use_split(config.train_dataloader, train, work_dir)
    use_split(config.val_dataloader, val, work_dir)
    config.resume = _is_interrupted(config, work_dir)
    if gpus > 1:
        from retinaface.ranks import run_on

        return run_on(gpus, config, work_dir, report)
    return run(config, work_dir, report)


def run(config: Config, work_dir: Path, report: Callable[[float], None]) -> Outcome:
    """`train`, for a config that is complete; in a process group this is one rank's part."""
    import torch
    from mmengine.dist import is_main_process

    from retinaface.convert import save_detector
    from retinaface.hooks import Progress, ReportAP

    started = time.monotonic()
    runner = build_runner(config, work_dir)
    runner.register_hook(ReportAP(report))
    runner.register_hook(Progress())
    try:
        runner.train()
    except torch.OutOfMemoryError as error:
        raise JobError(_too_large(config, runner.model.training)) from error
    detector = work_dir / "detector.safetensors"
    if is_main_process():
        runner.load_checkpoint(runner.message_hub.get_info("best_ckpt"))
        save_detector(getattr(runner.model, "module", runner.model), detector)
    best = float(runner.message_hub.get_info("best_score"))
    return Outcome(best, runner.epoch, time.monotonic() - started, detector)


def tuned(config: Config, outcome: Outcome) -> Config:
    """The config of the detector that training with this config has made, whatever its parameters have changed."""
    config = copy.deepcopy(config)
    config.model.weights = str(outcome.detector)
    config.model.pop("inherits", None)
    return config


def _is_interrupted(config: Config, work_dir: Path) -> bool:
    """Whether a run that began as this one does has left a checkpoint; notes down how this one begins."""
    parts = [json.dumps(config.to_dict(), sort_keys=True).encode()]
    files = [config.train_dataloader.dataset.ann_file, config.val_dataloader.dataset.ann_file]
    if config.model.get("weights") is not None:
        from retinaface.convert import weights_file

        files.append(weights_file(config.model.weights))
    parts += [Path(file).read_bytes() for file in files]
    digest = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    noted, last = work_dir / RUN_FILE, work_dir / "last_checkpoint"  # the latter is mmengine's
    if noted.is_file() and noted.read_text() == digest and last.is_file():
        print(f"going on from {last.read_text()}", flush=True)
        return True
    last.unlink(missing_ok=True)
    noted.write_text(digest)
    return False


def _too_large(config: Config, training: bool) -> str:
    if training:
        loader, option = config.train_dataloader, "--batch-size or --size"
        side = find_transform(loader, "ResizeFaces").scale[0]
    else:
        loader, option = config.val_dataloader, "--eval-size"
        side = max(resize["scale"] for resize in find_transforms(loader, "ResizeShortestEdge"))
    kind = "training" if training else "validating"
    return f"the GPU ran out of memory {kind} at batch size {loader.batch_size} and {side} pixels; lower {option}."


def evaluate(config: Config, split: CocoSplit, evaluator: dict | list[dict] | None = None) -> dict[str, float]:
    """The metrics of the config's detector, with the weights that it names, on a split.

    `evaluator` takes the place of the config's `val_evaluator`, which measures AP@50 as `face/ap50`.
    """
    config = copy.deepcopy(config)
    for key in TRAINING_ONLY:
        config.pop(key, None)
    config.default_hooks.checkpoint = None
    if evaluator is not None:
        config.val_evaluator = evaluator
    with TemporaryDirectory() as folder:
        use_split(config.val_dataloader, split, Path(folder))
        runner = build_runner(config, Path(folder))
        runner.model.init_weights()
        return runner.val()


def validate(config: Config, val: CocoSplit) -> float:
    """AP@50 of the config's detector with the weights that it names."""
    return evaluate(config, val)["face/ap50"]


def build_runner(config: Config, work_dir: Path) -> Runner:
    """mmengine's Runner, with everything registered that the configs name."""
    # Without it cuBLAS has no deterministic algorithm to choose.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch
    from mmengine.config import Config
    from mmengine.runner import Runner

    from retinaface import modules  # noqa: F401

    # Runners of one name share their message hub, and the default name is the second they were built in.
    config = {**config, "work_dir": str(work_dir), "experiment_name": uuid.uuid4().hex}
    # mmengine writes the config down several times; to have yapf format it takes seconds.
    runner = Runner.from_cfg(Config(config, format_python_code=False))
    if not torch.cuda.is_available():  # what a processor's depthwise convolutions are fast with
        runner.model.to(memory_format=torch.channels_last)
    return runner


def use_split(dataloader: Config, split: CocoSplit, work_dir: Path) -> None:
    """Write a checked split below `work_dir` and have the data loader read it."""
    work_dir.mkdir(parents=True, exist_ok=True)
    path = work_dir / f"{split.split}.json"
    split.write(path)
    dataloader.dataset.update(ann_file=str(path.resolve()), data_root=None, checked=True)
