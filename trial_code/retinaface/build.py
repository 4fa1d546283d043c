"""Detectors and runners built from configs, with all modules registered that the configs name."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import torch
from mmdet.models import BaseDetector
from mmdet.registry import MODELS
from mmengine.config import Config

from nni_hyperfd.method.weights import WeightsError
from retinaface import modules  # noqa: F401  registers them
from retinaface.convert import load_weights
from retinaface.runner import StrictRunner


def load_detector(config: Config, weights: str | Path) -> BaseDetector:
    """The detector of a config with weights, in evaluation mode.

    Args:
        config: config whose `model` is built.
        weights: what `weight_files.weights_file` accepts.

    Raises:
        WeightsError: the weights do not fit the detector, or are those of a backbone only.
    """
    detector: BaseDetector = MODELS.build(config.model)
    if load_weights(detector, weights) is not detector:
        raise WeightsError(f"{weights} fills the backbone only; train a detector from it with pretrain.py.")
    return detector.eval()


def build_runner(config: Config, work_dir: Path) -> StrictRunner:
    """The runner of a config that writes its logs and checkpoints below `work_dir`."""
    # Without it cuBLAS has no deterministic algorithms.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Runners of the same name share their message hub, and the default name is the current second.
    settings = {**config, "work_dir": str(work_dir), "experiment_name": uuid.uuid4().hex}
    # mmengine writes the config several times, and formatting it with yapf takes seconds.
    runner: StrictRunner = StrictRunner.from_cfg(Config(settings, format_python_code=False))
    if not torch.cuda.is_available():  # depthwise convolutions on a CPU are fast in this memory format only
        runner.model.to(memory_format=torch.channels_last)
    return runner
