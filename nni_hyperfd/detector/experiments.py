"""What NNI experiments of this machine have left: their folders, and the finished trials in them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nni_hyperfd import files
from nni_hyperfd.datasets import coco
from nni_hyperfd.detector import trial_code
from nni_hyperfd.detector.onnx_detector import OnnxDetector, as_records, open_image
from nni_hyperfd.files import FolderError
from nni_hyperfd.privacy import traces

START = "start.onnx"
"""The detector before fine-tuning, beside `model.onnx`."""

_TRIALS = str(Path("environments", "*", "trials", "*", "work", "trial.json"))  # of NNI's local service and finetune.py


@dataclass(frozen=True)
class FinishedTrial:
    """A trial of `trial_code/finetune.py` that has come to its end.

    Attributes:
        work: its folder, with `trial.json` and `detector.safetensors`.
        id: NNI's id of it.
        parameters: values of the search space.
        data: folder of the data set; None if it is not known on this machine.
        start: weights that it started from.
        best: AP@50 on the validation split, in [0, 1].
        epochs: number of epochs.
        seconds: duration of the training.
    """

    work: Path
    id: str
    parameters: dict[str, Any]
    data: Path | None
    start: Path
    best: float
    epochs: int
    seconds: float

    @classmethod
    def read(cls, work: Path) -> FinishedTrial:
        """Read the record of a trial's folder.

        Raises:
            FolderError: it cannot be read.
        """
        path = work / "trial.json"
        try:
            values = json.loads(path.read_text())
            places = traces.place_of(str(values["data"])), Path(values["start"])
            best, epochs, seconds = float(values["best"]), int(values["epochs"]), float(values["seconds"])
            return cls(work, str(values["trial"]), dict(values["parameters"]), *places, best, epochs, seconds)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FolderError(f"{path}: it cannot be read ({type(error).__name__}: {error}); remove it") from error

    @property
    def weights(self) -> Path:
        """The tuned detector."""
        return self.work / "detector.safetensors"

    @cached_property
    def splits(self) -> dict[str, coco.CocoSplit]:
        """The checked splits `train` and `val` of the data set, and `test` if it has one.

        Raises:
            FolderError: the data set is not on this machine any more, or cannot be used.
        """
        data = self.data
        if data is None or not data.is_dir():
            where = f"trial {self.id}" if data is None else str(data)
            raise FolderError(f"{where}: the data set of the experiment is not here; run this where its images are")
        present = [name for name in ("train", "val", "test") if name != "test" or (data / "test.json").is_file()]
        try:
            return {name: coco.load(data, name) for name in present}
        except coco.AnnotationError as error:
            raise FolderError(str(error)) from error

    @cached_property
    def exported(self) -> Path:
        """The folder with what `trial_code/export.py` makes of the trial; made on first use, and kept.

        Raises:
            FolderError: another process makes it, or the script ends with an error.
        """
        folder = self.work / "export"
        with files.locked(folder):
            facts = folder / "facts.json"
            digest = hashlib.sha256(self.weights.read_bytes()).hexdigest()
            if not facts.is_file() or json.loads(facts.read_text())["weights"] != digest:
                _run_script("export.py", "--trial", str(self.work), "--out", str(folder))
        return folder

    def facts(self) -> dict[str, Any]:
        """The figures of `trial_code/export.py`."""
        facts: dict[str, Any] = json.loads((self.exported / "facts.json").read_text())
        return facts

    def detections(
        self, model: str, split: str, progress: Callable[[str], None] = lambda line: None
    ) -> list[coco.Record]:
        """Detections of a model on a split, as COCO results; computed on first use, and kept beside the model.

        Args:
            model: `model.onnx` or `start.onnx`.
            split: name of a split of the data set.
            progress: called with what is computed.
        """
        data = self.splits[split]
        folder = self.exported
        path = folder / f"{Path(model).stem}.{split}.json"
        key = f"{hashlib.sha256((folder / model).read_bytes()).hexdigest()} {data.fingerprint()}"
        if path.is_file() and (kept := json.loads(path.read_text()))["key"] == key:
            return list(kept["results"])
        progress(f"{data.num_images} images of the split {split} with {model}")
        detector = OnnxDetector(folder / model)
        results = [
            record
            for image in data.images
            for record in as_records(image["id"], *detector.detect(open_image(data.image_path(image))))
        ]
        files.write_json(path, {"key": key, "results": results}, indent=None)
        return results


@dataclass(frozen=True)
class Experiment:
    """An NNI experiment.

    Attributes:
        id: NNI's id of it.
        folder: NNI's folder for it.
    """

    id: str
    folder: Path

    def trials(self) -> list[FinishedTrial]:
        """Its finished trials on this machine, in the order in which they ended."""
        records = sorted(self.folder.glob(_TRIALS), key=lambda path: (path.stat().st_mtime, path))
        return [FinishedTrial.read(path.parent) for path in records if (path.parent / "detector.safetensors").is_file()]

    def best(self) -> FinishedTrial:
        """The finished trial with the highest AP@50.

        Raises:
            FolderError: there is none.
        """
        trials = self.trials()
        if not trials:
            raise FolderError(
                f"experiment {self.id}: no trial in {self.folder} has left a detector; wait for the first to end, and "
                "run this on the machine of the trials"
            )
        return max(trials, key=lambda trial: trial.best)


def find(experiment: Path | str) -> Experiment:
    """Find an experiment of this machine.

    Args:
        experiment: NNI's id of it, or its folder.

    Raises:
        FolderError: there is no such experiment here.
    """
    given = Path(experiment)
    if given.is_dir():
        return Experiment(given.resolve().name, given.resolve())
    home = Path.home() / "nni-experiments"  # where NNI keeps its list, whatever the experiments' own folders are
    folder = _listed(home / ".experiment").get(str(experiment), home) / str(experiment)
    if not folder.is_dir():
        raise FolderError(
            f"experiment {experiment}: NNI knows none of this id on this machine; name its folder, which is in the "
            "experimentWorkingDirectory of its configuration"
        )
    return Experiment(str(experiment), folder)


def _listed(path: Path) -> dict[str, Path]:
    """Folder of experiments of each id in NNI's list."""
    try:
        known = json.loads(path.read_text())
        return {name: Path(entry["logDir"]) for name, entry in known.items() if entry.get("logDir")}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _run_script(script: str, *arguments: str) -> None:
    """Run a script of the trials' code in a process of its own.

    Raises:
        FolderError: it ends with an error; the message has its last line.
    """
    command = [sys.executable, str(trial_code() / script), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"]
        advice = "; run `pip install 'nni-hyperfd[detector]'`" if "ModuleNotFoundError" in lines[-1] else ""
        raise FolderError(f"{lines[-1]}{advice}")
