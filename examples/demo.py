"""`make demo`: two NNI experiments on two face data sets; the second one starts from what the first one learned.

    python examples/demo.py [--data FOLDER] [--weights FILE] [--folder demo]

Without --data it draws two synthetic data sets, without --weights it first trains a small detector on synthetic scenes
of a third kind. It stops what it started, also when it is interrupted (Ctrl-C, SIGTERM).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from nni_hyperfd.experiment import launch
from nni_hyperfd.platform import Platform, TaskView
from nni_hyperfd.task import Phase

ROOT = Path(__file__).resolve().parent.parent
TRIAL_CODE = ROOT / "trial_code"
CONFIGS = TRIAL_CODE / "configs"
console = Console(width=max(100, Console().width))


@dataclass(frozen=True)
class Detector:
    """The detector to start from, and the sizes that suit it.

    Attributes:
        weights: its file.
        config: its MMDetection config.
        size: of the images, in pixels.
        epochs: of each fine-tuning trial.
        about: what it was trained on, in a few words.
    """

    weights: Path
    config: Path
    size: int
    epochs: int
    about: str


def main() -> None:
    """Run the demo with the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with one sub-folder per data set; the first two are used")
    parser.add_argument("--weights", type=Path, help="RetinaFace-MobileNet0.25 that was trained on WIDER-Face")
    parser.add_argument("--folder", type=Path, help="for everything the demo writes; by default one for each detector")
    arguments = parser.parse_args()
    # Experiments share a state only where they start from the same detector: what is best depends on it.
    own = ROOT / "demo" / (arguments.weights.stem if arguments.weights else "synthetic")
    folder = (arguments.folder or own).resolve()
    try:
        with launch.interruptible():
            run(folder, arguments.data, arguments.weights)
    except launch.LaunchError as error:
        sys.exit(f"demo: {error}")
    except launch.Interrupted as interrupted:
        print("demo: stopped, and all that it had started; the same command starts again", file=sys.stderr)
        sys.exit(interrupted.exit_code)


def run(folder: Path, data: Path | None, weights: Path | None) -> None:
    """Run both experiments.

    Args:
        folder: for everything that is written; what an earlier run has prepared in it is used again.
        data: folder with the data sets as sub-folders; None for synthetic ones.
        weights: detector to start from; None to train one.
    """
    state = _use(folder)
    general = _synthetic(folder / "general", "plain", images=(96, 32, 0), seed=1)
    if data is None:
        # There is nobody to protect in synthetic scenes, and the demo's own detector has no projection to noise by.
        os.environ.setdefault("HYPERFD_PRIVACY", "off")
        data_sets = [_synthetic(folder / name, name) for name in ("masked_night", "cartoon_fisheye")]
    else:
        data_sets = _data_sets(data.resolve())
    detector = _detector(weights, general, folder)
    _describe_offline(detector, general, folder / "offline", state)

    console.print(f"The state lies in [bold]{state}[/]; trials and logs in {folder / 'experiments'}")
    for number, each in enumerate(data_sets, start=1):
        console.rule(f"Experiment {number} of {len(data_sets)}: {each.name}{_label(each)}")
        timing = _experiment(each, detector, folder / "experiments")
        console.print(_results(Platform(state).tasks()[-1], each, detector))
        console.print(timing)
    console.print(f"Look into it: hyperfd tasks --state {state}")


def _use(folder: Path) -> Path:
    """Keep everything in this folder, NNI's list of experiments included; return the path of the state."""
    folder.mkdir(parents=True, exist_ok=True)
    own = {"HOME": folder, "XDG_DATA_HOME": folder, "XDG_CACHE_HOME": folder / "cache"}
    os.environ.update({name: str(path) for name, path in own.items()})
    # For nnictl, python3 and hyperfd.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return folder / "nni_hyperfd" / "state.sqlite"


def _synthetic(folder: Path, domain: str, images: tuple[int, int, int] = (64, 32, 0), seed: int = 0) -> Path:
    if not (folder / "train.json").exists():
        _run("hyperfd", "synthetic", folder, "--domain", domain, "--images", *images, "--seed", seed)
    return folder


def _data_sets(folder: Path) -> list[Path]:
    found = sorted(path.parent for path in folder.glob("*/train.json") if (path.parent / "val.json").exists())
    if len(found) < 2:
        sys.exit(f"demo: {folder} has {len(found)} sub-folders with train.json and val.json; two data sets are needed")
    return found[:2]


def _detector(weights: Path | None, general: Path, folder: Path) -> Detector:
    if weights is not None:
        config = CONFIGS / "retinaface_mobilenet025.py"
        return Detector(weights.resolve(), config, size=320, epochs=5, about=weights.name)
    config, path = CONFIGS / "retinaface_mobilenetv2_imagenet.py", folder / "detector.safetensors"
    detector = Detector(path, config, size=160, epochs=20, about="ImageNet, synthetic scenes")
    if not path.exists():
        console.print("Training the detector to start from, on synthetic scenes (about a minute) ...")
        command = [sys.executable, "pretrain.py", "--data", general, "--out", path, "--weights", "imagenet"]
        sizes = ["--size", 160, "--epochs", 16, "--val-interval", 4, "--batch-size", 8, "--workers", 0]
        _run(*command, "--config", config, *sizes, cwd=TRIAL_CODE)
    return detector


def _describe_offline(detector: Detector, general: Path, out: Path, state: Path) -> None:
    """Begin a state with data of its own, which carries meta-features from one extractor version to the next."""
    if state.exists():
        return
    command = [sys.executable, "describe.py", "--data", general, "--weights", detector.weights, "--out", out]
    sizes = ["--config", detector.config, "--size", detector.size, "--workers", 0]
    _run(*command, *sizes, cwd=TRIAL_CODE)
    _run("hyperfd", "offline", *sorted(out.glob("*.safetensors")), "--state", state)


def _experiment(data: Path, detector: Detector, folder: Path) -> str:
    """Run one NNI experiment from start to stop; say what happens meanwhile, and return its timing."""
    import nni
    from nni.experiment import ExperimentConfig

    nni.silence_stdout()
    variables = {
        "HYPERFD_DATA": data,
        "HYPERFD_WEIGHTS": detector.weights,
        "HYPERFD_CONFIG": detector.config,
        "HYPERFD_SIZE": detector.size,
        "HYPERFD_EPOCHS": detector.epochs,
    }
    os.environ.update({name: str(value) for name, value in variables.items()})
    config = ExperimentConfig.load(ROOT / "examples" / "demo.yml")
    config.experiment_working_directory = folder
    created = time.time()
    experiment = launch.start(config)
    try:
        console.print(f"Web UI while it runs: [bold]http://localhost:{experiment.port}[/]")
        seen: dict[str, str] = {}
        while (status := experiment.status()).name not in ("DONE", "ERROR", "GONE"):
            _say_changes(experiment.trial_jobs(), seen)
            time.sleep(1)
        if status.name != "DONE":
            sys.exit("demo: the experiment ended with an error: " + ("\n".join(status.errors) or status.name))
        trials = experiment.trial_jobs()
        _say_changes(trials, seen)
        return _timing(created, trials)
    finally:
        experiment.stop()


def _timing(created: float, trials: list[dict[str, Any]]) -> str:
    """Return the time until the first fine-tuning trial, and the share of time in which none ran, as a sentence."""
    spans = sorted(
        (trial["startTime"] / 1000, trial["endTime"] / 1000)
        for trial in trials
        if "phase" not in json.loads(trial["hyperParameters"][0])["parameters"]
    )
    end = max(trial["endTime"] for trial in trials) / 1000
    busy, reached = 0.0, created
    for start, stop in spans:
        busy += max(0.0, stop - max(start, reached))
        reached = max(reached, stop)
    return (
        f"{end - created:.0f} s in all; the first fine-tuning trial started {spans[0][0] - created:.1f} s after the "
        f"experiment was created; {1 - busy / (end - created):.0%} of the time no trial was fine-tuning"
    )


def _say_changes(trials: list[dict[str, Any]], seen: dict[str, str]) -> None:
    for trial in trials:
        if seen.get(trial["trialJobId"]) != trial["status"]:
            seen[trial["trialJobId"]] = trial["status"]
            console.print(f"  {time.strftime('%H:%M:%S')} trial {trial['sequenceId']}: {trial['status'].lower()}")


def _results(task: TaskView, data: Path, detector: Detector) -> Table:
    table = Table(title=f"Task {task.id}: {data.name}{_label(data)}; start: {detector.about}")
    for column in ("configuration", "predicted rank", "AP@50 before", "AP@50 after", "time"):
        table.add_column(column, justify="left" if column == "configuration" else "right")
    for trial in task.trials:
        if trial.phase is Phase.FINE_TUNE:
            after = str(trial.status) if trial.performance is None else f"{trial.performance:.3f}"
            seconds = (trial.ended - trial.started).total_seconds() if trial.started and trial.ended else 0
            configuration = " ".join(str(value) for value in trial.configuration.values())
            before = "-" if task.baseline is None else f"{task.baseline:.3f}"
            table.add_row(
                configuration, f"{trial.rank} of {task.settings.candidates}", before, after, f"{seconds:.0f} s"
            )
    table.caption = f"configuration: {', '.join(task.space.definition)}"
    return table


def _label(data: Path) -> str:
    return " (synthetic)" if '"synthetic"' in (data / "train.json").read_text()[:2000] else ""


def _run(*command: object, cwd: Path = ROOT) -> None:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"demo: '{' '.join(words)}' failed:\n{done.stdout}")


if __name__ == "__main__":
    main()
