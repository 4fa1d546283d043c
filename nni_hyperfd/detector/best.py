"""The best trial of an experiment as a folder that can be shipped: weights, config, ONNX file and model card."""

from __future__ import annotations

import platform
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from nni_hyperfd import files
from nni_hyperfd.datasets.coco import CocoSplit
from nni_hyperfd.detector import card, experiments
from nni_hyperfd.detector.experiments import START, FinishedTrial
from nni_hyperfd.detector.measures import PRECISIONS, Matched, Threshold, faces_of, match, sizes
from nni_hyperfd.detector.onnx_detector import FIGURES, MODEL, OnnxDetector, Settings, open_image
from nni_hyperfd.files import FolderError

_TIMED = 16
_SHIPPED = ("detector.safetensors", "config.py", MODEL)


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
        thresholds: by precision, the lowest score with that precision on the validation split, where there is one.
        chosen: the score that `hyperfd detect` uses where none is given.
        milliseconds: for an image on one core of this machine, the median, and how many images there are in a second.
    """

    folder: Path
    trial: str
    parameters: dict[str, object]
    before: float
    validation: float
    test: float | None
    onnx_difference: tuple[float, float]
    thresholds: dict[float, Threshold]
    chosen: Threshold
    milliseconds: float

    @property
    def images_per_second(self) -> float:
        """On one core of this machine."""
        return 1000 / self.milliseconds


def write(
    experiment: Path | str, out: Path, progress: Callable[[str], None] = lambda line: None, task: str = ""
) -> Detector:
    """Write the folder of an experiment's best detector, completely or not at all.

    Args:
        experiment: NNI's id of an experiment of this machine, or its folder (`EXPERIMENT_DIR/ID`).
        out: the folder to make; an earlier one of this function is replaced.
        progress: called with each step.
        task: names the experiment's task in the model card.

    Raises:
        FolderError: no trial of the experiment has left a detector, its data set is not on this machine, or `out` holds
            something else.
    """
    with _new_folder(out) as partial:
        found = experiments.find(experiment)
        trial = found.best()
        detector, content = _measure(trial, out, progress)
        for name in _SHIPPED:
            shutil.copyfile(trial.exported / name, partial / name)
        content |= {"experiment": found.id, "task": task}
        files.write_json(partial / FIGURES, content)
        files.write_text(partial / "card.md", card.write(content))
    return detector


def _measure(trial: FinishedTrial, out: Path, progress: Callable[[str], None]) -> tuple[Detector, dict[str, Any]]:
    """The figures of a trial's detector, and the same as the content of `detector.json`."""
    progress(f"trial {trial.id}, AP@50 {trial.best:.4f}: its ONNX file, compared with PyTorch")
    facts = trial.facts()
    runner = OnnxDetector(trial.exported, threads=1)
    after, before = matched(trial, MODEL, progress), matched(trial, START, progress)
    thresholds = {precision: at for precision in PRECISIONS if (at := after["val"].threshold(precision)) is not None}
    chosen = choose(after["val"])
    milliseconds, size = _latency(runner, trial.splits["val"])
    difference = facts["difference"]
    detector = Detector(
        folder=out,
        trial=trial.id,
        parameters=trial.parameters,
        before=_ap(before["val"]),
        validation=_ap(after["val"]),
        test=_ap(after["test"]) if "test" in after else None,
        onnx_difference=(difference["boxes"], difference["scores"]),
        thresholds=thresholds,
        chosen=chosen,
        milliseconds=milliseconds,
    )
    content = {
        "trial": trial.id,
        "parameters_of_trial": trial.parameters,
        "ap50": {split: {"before": before[split].ap(), "after": after[split].ap()} for split in after},
        "ap50_of_the_trial": trial.best,
        "thresholds": {str(precision): asdict(at) for precision, at in thresholds.items()},
        "chosen": asdict(chosen),
        "latency": {"milliseconds": milliseconds, "size": size, "threads": 1, "machine": _machine()},
        "data": {name: _numbers(split, runner.settings) for name, split in trial.splits.items()},
        "start": {"name": trial.start.name, **card.source(trial.start)},
        "training": {"epochs": trial.epochs, "seconds": trial.seconds},
        "settings": runner.settings.to_json(),
        **facts,
    }
    return detector, content


def matched(
    trial: FinishedTrial, model: str, progress: Callable[[str], None] = lambda line: None
) -> dict[str, Matched]:
    """Detections of a model of a trial, matched to the faces of the validation and test splits, by split.

    Args:
        trial: the trial.
        model: `model.onnx` or `start.onnx`.
        progress: called with each step.
    """
    settings = OnnxDetector(trial.exported / MODEL).settings  # the same faces count before and after
    return {
        name: match(faces_of(split, settings.min_face), trial.detections(model, name, progress))
        for name, split in trial.splits.items()
        if name != "train"
    }


def choose(found: Matched) -> Threshold:
    """The threshold that is used where none is given: that of the best F1 on the validation split."""
    return found.best_threshold() or Threshold(0.5, 0.0, 0.0)


def _ap(found: Matched) -> float:
    ap = found.ap()
    if ap is None:
        raise FolderError("the split has no face that counts; lower --min-face of the trials, or add larger faces")
    return ap


def _latency(detector: OnnxDetector, split: CocoSplit) -> tuple[float, list[int]]:
    """Median milliseconds from an opened image to its faces, and width and height of the images after resizing."""
    images = [open_image(split.image_path(image)) for image in split.images[:_TIMED]]
    detector.detect(images[0])
    seconds, sides = [], []
    for image in images:
        begin = time.perf_counter()
        detector.detect(image)
        seconds.append(time.perf_counter() - begin)
        sides.append(detector.settings.scaled(*image.size))
    middle = [int(statistics.median(side)) for side in zip(*sides, strict=True)]
    return statistics.median(seconds) * 1000, middle


def _numbers(split: CocoSplit, settings: Settings) -> dict[str, Any]:
    """A split in numbers, of which none names an image."""
    faces = faces_of(split, settings.min_face)
    counted = np.concatenate([own.boxes[own.counts] for own in faces])
    return {
        "images": split.num_images,
        "faces": sum(len(own.boxes) for own in faces),
        "count": len(counted),
        "side": [round(float(side), 1) for side in np.quantile(sizes(counted), (0.1, 0.5, 0.9))]
        if len(counted)
        else [],
    }


def _machine() -> str:
    """Name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yields a new folder that takes the place of `out` at the end, unless the block fails.

    Raises:
        FolderError: `out` holds something else than a detector.
    """
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / FIGURES).is_file())):
        raise FolderError(f"{out}: it holds something else than a detector of this command; name another folder")
    partial = out.with_name(f".{out.name}.{uuid4().hex}")
    partial.mkdir(parents=True)
    try:
        yield partial
        if out.exists():
            shutil.rmtree(out)
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
