"""The best trial of an experiment as a folder that can be shipped: weights, config, ONNX file and model card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Detector:
    """A detector's folder, with the figures of its model card.

    Attributes:
        folder: it has `detector.safetensors`, `config.py`, `model.onnx`, `detector.json` and `card.md`.
        trial: NNI's id of the trial that has made it.
        parameters: the trial's parameters.
        before: AP@50 of the starting detector on the validation split, in [0, 1].
        validation: AP@50 on the validation split, which chose the trial.
        test: AP@50 on the test split; None without one.
        onnx_difference: largest difference between model.onnx and PyTorch on validation images, of boxes in pixels and
            of scores.
    """

    folder: Path
    trial: str
    parameters: dict[str, object]
    before: float
    validation: float
    test: float | None
    onnx_difference: tuple[float, float]


def write(experiment: Path | str, out: Path) -> Detector:
    """Write the folder of an experiment's best detector, completely or not at all.

    Args:
        experiment: NNI's id of an experiment of this machine, or its folder (`EXPERIMENT_DIR/ID`).
        out: the folder to make; an earlier one of this function is replaced.

    Raises:
        FolderError: no trial of the experiment has left a detector, its data set is not on this machine, or `out` holds
            something else.
    """
    raise NotImplementedError
