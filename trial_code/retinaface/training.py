"""Training a detector on a data set, and evaluating one."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from nni_hyperfd import files
from retinaface.build import build_runner
from retinaface.pipelines import use_split
from retinaface.ranks import run_on
from retinaface.runs import Outcome, run
from retinaface.weight_files import weights_file

if TYPE_CHECKING:
    from mmengine.config import Config

    from nni_hyperfd.datasets.coco import CocoSplit

TRAINING_ONLY = ("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler", "custom_hooks")
RUN_FILE = "run.sha256"


def train(
    config: Config,
    train: CocoSplit,
    val: CocoSplit,
    work_dir: Path,
    report: Callable[[float], None] = lambda ap: None,
    gpus: int = 1,
) -> Outcome:
    """Train the detector of a config, starting from the weights that it names.

    If an interrupted run of the same config, weights and annotations has left a checkpoint in `work_dir`, it is
    resumed; files of any other run are overwritten.

    Args:
        config: the detector and how it is trained; not changed.
        train: annotations to train on.
        val: annotations to validate on.
        work_dir: folder for everything that is written; no name or box of an image is among it.
        report: called with the AP@50 of each validation.
        gpus: number of GPUs of this machine to train on.

    Raises:
        FloatingPointError: the loss is NaN or infinite.
        ScriptError: the GPU has too little memory, or the batch cannot be divided among the GPUs.
        WeightsError: the weights to start from, or the checkpoint to resume from, are refused.
    """
    config = without_place(config)
    with TemporaryDirectory() as folder:  # names and boxes of images do not belong into what NNI keeps of a trial
        use_split(config.train_dataloader, train, Path(folder))
        use_split(config.val_dataloader, val, Path(folder))
        config.resume = _is_interrupted(config, work_dir)
        if gpus > 1:
            return run_on(gpus, config, work_dir, report)
        return run(config, work_dir, report)


def tuned(config: Config, outcome: Outcome) -> Config:
    """The config of the detector that training with `config` has produced."""
    config = copy.deepcopy(config)
    config.model.weights = str(outcome.detector)
    config.model.pop("inherits", None)
    return config


def evaluate(
    config: Config, split: CocoSplit, evaluator: dict[str, Any] | list[dict[str, Any]] | None = None
) -> dict[str, float]:
    """Metrics of a detector on a split.

    Args:
        config: config of the detector, with the weights that it names; not changed.
        split: annotations to evaluate on.
        evaluator: replaces the config's `val_evaluator`, which measures AP@50 as `face/ap50`.
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
        metrics: dict[str, float] = runner.val()
    return metrics


def validate(config: Config, val: CocoSplit) -> float:
    """AP@50, in [0, 1], of the config's detector with the weights that it names."""
    return evaluate(config, val)["face/ap50"]


def without_place(config: Config) -> Config:
    """A copy without the data set's folder, which mmengine would write down with it; `use_split` has it otherwise."""
    config = copy.deepcopy(config)
    config.pop("data_root", None)
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        if config.get(loader):
            config[loader].dataset.data_root = None
    return config


def _is_interrupted(config: Config, work_dir: Path) -> bool:
    """Whether `work_dir` has a checkpoint of a run that began like this one; records how this one begins."""
    inputs = [config.train_dataloader.dataset.ann_file, config.val_dataloader.dataset.ann_file]
    text = json.dumps(config.to_dict(), sort_keys=True)
    for file in inputs:  # their contents matter, not their temporary places
        text = text.replace(json.dumps(file), "")
    parts = [text.encode()]
    if config.model.get("weights") is not None:
        inputs.append(weights_file(config.model.weights))
    parts += [Path(file).read_bytes() for file in inputs]
    digest = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    recorded, last = work_dir / RUN_FILE, work_dir / "last_checkpoint"  # mmengine writes the latter
    if recorded.is_file() and recorded.read_text() == digest and last.is_file():
        checkpoint = work_dir / Path(last.read_text()).name  # the folder may have been moved since
        last.write_text(str(checkpoint))
        print(f"going on from {checkpoint}", flush=True)
        return True
    last.unlink(missing_ok=True)
    files.write_text(recorded, digest)
    return False
