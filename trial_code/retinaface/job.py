"""What a job works on and how big it is: the command line that all scripts share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from nni_hyperfd.datasets.coco import AnnotationError
from nni_hyperfd.space.architecture import ArchitectureError
from retinaface.extended import ParameterError
from retinaface.pipelines import find_transform

if TYPE_CHECKING:
    from mmengine.config import Config

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


class JobError(Exception):
    """What a job cannot do as it was asked to; the message is for its user."""


@dataclass(frozen=True)
class Job:
    """A data set folder, a detector and sizes; None leaves a size as the config has it."""

    data: Path
    weights: str | None = None
    config: Path = CONFIGS / "retinaface_mobilenetv2.py"
    size: int | None = None
    eval_size: int | None = None
    min_face: float | None = None
    epochs: int | None = None
    val_interval: int | None = None
    batch_size: int | None = None
    workers: int | None = None
    gpus: int = 1
    amp: bool = False
    strict: bool = False
    seed: int = 0

    @classmethod
    def parser(cls, description: str) -> argparse.ArgumentParser:
        """A parser with an option for each field; `from_arguments` makes a Job of what it parses."""
        parser = argparse.ArgumentParser(description=description)
        add = parser.add_argument
        add("--data", type=Path, required=True, help="folder with train.json, val.json and images/")
        add("--weights", help="detector to start from: .safetensors, released RetinaFace .pth, or 'imagenet'")
        add("--config", type=Path, default=cls.config, help="mmengine config of the detector")
        add("--size", type=int, help="side of the training crop in pixels")
        add("--eval-size", type=int, help="shorter side at evaluation in pixels (default: --size where that is given)")
        add("--min-face", type=float, help="smaller faces do not count in AP; share of the image's shorter side")
        add("--epochs", type=int, help="the most epochs to train")
        add("--val-interval", type=int, help="epochs from one validation to the next")
        add("--batch-size", type=int, help="images in a training step, of all GPUs together")
        add("--workers", type=int, help="processes that load images; results depend on it as they do on the seed")
        add("--gpus", type=int, default=cls.gpus, help="GPUs of this machine to train on, together")
        add("--amp", action="store_true", help="train in mixed precision (needs a GPU)")
        add("--strict", action="store_true", help="refuse annotations that would be repaired with a warning")
        add("--seed", type=int, default=cls.seed)
        return parser

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Job:
        return cls(**{field.name: getattr(arguments, field.name) for field in fields(cls)})

    def load_config(self) -> Config:
        """The config with this job's sizes. Imports mmengine, and not yet mmdet.

        Raises JobError if it asks for GPUs that the machine does not have.
        """
        from mmengine.config import Config

        config = Config.fromfile(self.config, import_custom_modules=False)
        train, val = config.train_dataloader, config.val_dataloader
        if self.size is not None:
            find_transform(train, "ResizeFaces").scale = (self.size, self.size)
        if (eval_size := self.eval_size or self.size) is not None:
            resize = find_transform(val, "ResizeShortestEdge")
            resize.update(scale=eval_size, max_size=4 * eval_size)
        if self.min_face is not None:
            val.dataset.min_face = self.min_face
        if self.epochs is not None:
            config.train_cfg.max_epochs = self.epochs
        if self.val_interval is not None:
            config.train_cfg.val_interval = self.val_interval
        if self.batch_size is not None:
            train.batch_size = self.batch_size
        if self.workers is not None:
            for loader in (train, val):
                loader.update(num_workers=self.workers, persistent_workers=self.workers > 0)
        if self.amp or self.gpus > 1:
            from torch import cuda

            if (found := cuda.device_count()) < self.gpus:
                wanted = f"--gpus {self.gpus}" if self.gpus > 1 else "--amp"
                raise JobError(f"{wanted} needs {self.gpus} GPU{'s' * (self.gpus > 1)}, torch finds {found} here.")
        if self.amp:
            config.optim_wrapper.type = "AmpOptimWrapper"
        # A job reports by itself (hooks.Progress, NNI), and draws nothing.
        config.update(log_level="WARNING", visualizer=None)
        config.default_hooks.pop("visualization", None)
        config.model.weights = self.weights
        config.model.pop("inherits", None)  # where this is the config that a trial has left beside its own weights
        config.randomness.seed = self.seed
        return config


def run_script(main: Callable[[], object]) -> None:
    """Run a script's `main`; an error that its user can put right ends it with status 1 and one sentence."""
    try:
        main()
    except Exception as error:
        from nni_hyperfd.method.weights import WeightsError  # imports torch

        for_users = JobError | ParameterError | ArchitectureError | AnnotationError | WeightsError | FloatingPointError
        if not isinstance(error, for_users):
            raise
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
