"""The command-line options that all scripts share, and how a script ends when its user can put the error right."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nni_hyperfd.datasets.coco import AnnotationError
from nni_hyperfd.files import FolderError
from nni_hyperfd.space import ArchitectureError
from retinaface.extended import ParameterError
from retinaface.pipelines import find_transform

if TYPE_CHECKING:
    from mmengine.config import Config

TRIAL_CODE = Path(__file__).resolve().parent.parent
CONFIGS = TRIAL_CODE / "configs"
WEIGHTS = TRIAL_CODE / "weights"
_DATA_VARIABLE = "HYPERFD_DATA"
"""Names the data set's folder to configs that are used without these options."""
_SHORT = "_short"
"""Ending of the configs that differ from another one in the schedule only."""


class ScriptError(Exception):
    """A script cannot do what it was asked to; the message says what to change."""


@dataclass(frozen=True)
class Options:
    """A data set folder, a detector and the sizes of training and validation.

    Attributes:
        data: folder of a data set, or of several.
        weights: detector to start from, see `weight_files.weights_file`; None for random weights, or for the ones that
            come with the config (`with_start`).
        config: mmengine config of the detector.
        size, eval_size, min_face, epochs, val_interval, batch_size, workers: override the config's value unless None;
            the help texts of `parser` explain them.
        gpus: number of GPUs of this machine to train on.
        amp: train in mixed precision.
        strict: refuse annotations that would otherwise be repaired with a warning.
        seed: seed of all random numbers.
    """

    data: Path
    weights: str | None = None
    config: Path = CONFIGS / "retinaface_wider.py"
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
    def parser(cls, description: str | None) -> argparse.ArgumentParser:
        """A parser with an option for each attribute, to which a script adds its own.

        Args:
            description: docstring of the script, whose first line `--help` shows.
        """
        parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
        add = parser.add_argument
        add("--data", type=Path, required=True, help="folder with train.json, val.json and images/")
        add(
            "--weights",
            help="detector to start from: .safetensors, released RetinaFace .pth, or 'imagenet' (default: "
            "the file in weights/ that is named like the config)",
        )
        add("--config", type=Path, default=cls.config, help="mmengine config of the detector")
        add("--size", type=int, help="side of the training crop in pixels")
        add("--eval-size", type=int, help="shorter side at evaluation in pixels (default: --size where that is given)")
        add("--min-face", type=float, help="smaller faces do not count in AP; share of the image's shorter side")
        add("--epochs", type=int, help="maximum number of epochs")
        add("--val-interval", type=int, help="epochs from one validation to the next")
        add("--batch-size", type=int, help="images in a training step, of all GPUs together")
        add("--workers", type=int, help="processes that load images; results depend on it as they do on the seed")
        add("--gpus", type=int, default=cls.gpus, help="GPUs of this machine to train on, together")
        add("--amp", action="store_true", help="train in mixed precision (needs a GPU)")
        add("--strict", action="store_true", help="refuse annotations that would be repaired with a warning")
        add("--seed", type=int, default=cls.seed)
        return parser

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Options:
        """The options among the arguments that `parser` has parsed."""
        return cls(**{field.name: getattr(arguments, field.name) for field in fields(cls)})

    def require_weights(self) -> str:
        """The detector to start from: the given one, or the one in weights/ that is named like the config.

        Raises:
            ScriptError: no detector was given, and none comes with the config.
        """
        if self.weights is not None:
            return self.weights
        shipped = WEIGHTS / f"{self.config.stem.removesuffix(_SHORT)}.safetensors"
        if not shipped.is_file():
            raise ScriptError(f"no detector to start from comes with {self.config.name}; name a file with --weights.")
        return str(shipped)

    def with_start(self) -> Options:
        """These options with the detector that `require_weights` finds.

        Raises:
            ScriptError: no detector was given, and none comes with the config.
        """
        return replace(self, weights=self.require_weights())

    def load_config(self) -> Config:
        """The config with these options applied. Imports mmengine, but not mmdet.

        Raises:
            ScriptError: there is no such config file, or the machine does not have the GPUs that are asked for.
        """
        from mmengine.config import Config

        if not self.config.is_file():
            raise ScriptError(f"there is no config file {self.config}; {CONFIGS} has those of this folder.")
        self._check_gpus()
        with _unset(_DATA_VARIABLE):  # mmengine would print its value
            config = Config.fromfile(self.config, import_custom_modules=False)
        self._set_sizes(config)
        if self.amp:
            config.optim_wrapper.type = "AmpOptimWrapper"
        # Progress is printed by hooks.Progress and reported to NNI; nothing is drawn.
        config.update(log_level="WARNING", visualizer=None)
        config.default_hooks.pop("visualization", None)
        config.model.weights = self.weights
        config.model.pop("inherits", None)  # present if a trial wrote this config beside its own weights
        config.randomness.seed = self.seed
        return config

    def _check_gpus(self) -> None:
        if not self.amp and self.gpus == 1:
            return
        from torch import cuda

        if (found := cuda.device_count()) < self.gpus:
            wanted = f"--gpus {self.gpus}" if self.gpus > 1 else "--amp"
            raise ScriptError(f"{wanted} needs {self.gpus} GPU{'s' * (self.gpus > 1)}, torch finds {found} here.")

    def _set_sizes(self, config: Config) -> None:
        train, val = config.train_dataloader, config.val_dataloader
        if self.size is not None:
            find_transform(train, "ResizeFaces").scale = (self.size, self.size)
        if (eval_size := self.eval_size or self.size) is not None:
            resize = find_transform(val, "ResizeShortestEdge")
            resize.update(scale=eval_size, max_size=4 * eval_size)
        given: list[tuple[Any, str, float | None]] = [
            (val.dataset, "min_face", self.min_face),
            (config.train_cfg, "max_epochs", self.epochs),
            (config.train_cfg, "val_interval", self.val_interval),
            (train, "batch_size", self.batch_size),
        ]
        for part, name, value in given:
            if value is not None:
                part[name] = value
        if self.workers is not None:
            for loader in (train, val):
                loader.update(num_workers=self.workers, persistent_workers=self.workers > 0)


@contextmanager
def _unset(variable: str) -> Iterator[None]:
    """Without an environment variable within the block."""
    value = os.environ.pop(variable, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[variable] = value


def run_script(main: Callable[[], object]) -> None:
    """Run a script's `main`; an error that its user can put right becomes one sentence and exit status 1."""
    try:
        main()
    except Exception as error:
        from nni_hyperfd.weights import WeightsError  # imports torch

        for_users = (
            ScriptError
            | ParameterError
            | ArchitectureError
            | AnnotationError
            | FolderError
            | WeightsError
            | FloatingPointError
        )
        if not isinstance(error, for_users):
            raise
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
