"""`make demo`: two NNI experiments on two face data sets; the second one starts from what the first one learned.

    python examples/demo.py [--data FOLDER] [--weights FILE] [--folder demo]

Without --data it draws two synthetic data sets, without --weights it first trains a small detector on synthetic scenes
of a third kind. It stops what it started.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from rich.console import Console
from rich.table import Table

from nni_hyperfd.platform.platform import Platform
from nni_hyperfd.state.store import Task
from nni_hyperfd.task import FINE_TUNE

ROOT = Path(__file__).resolve().parent.parent
TRIAL_CODE = ROOT / "trial_code"
CONFIGS = TRIAL_CODE / "configs"
console = Console(width=max(100, Console().width))


@dataclass(frozen=True)
class Detector:
    """The detector to start from, and the sizes that suit it."""

    weights: Path
    config: Path
    size: int
    epochs: int
    about: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with one sub-folder per data set; the first two are used")
    parser.add_argument("--weights", type=Path, help="RetinaFace-MobileNet0.25 that was trained on WIDER-Face")
    parser.add_argument("--folder", type=Path, help="for everything the demo writes; by default one for each detector")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("demo: stopped"))  # so that what it started is stopped as well
    # Experiments share a state only where they start from the same detector: its features are what the state speaks of.
    own = ROOT / "demo" / (arguments.weights.stem if arguments.weights else "synthetic")
    folder = (arguments.folder or own).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    environment = _environment(folder)
    state = Path(environment["XDG_DATA_HOME"], "nni_hyperfd", "state.sqlite")

    general = _synthetic(folder / "general", "plain", environment, images=(96, 32, 0), seed=1)
    if arguments.data is None:
        data_sets = [_synthetic(folder / name, name, environment) for name in ("masked_night", "cartoon_fisheye")]
    else:
        data_sets = _data_sets(arguments.data.resolve())
    detector = _detector(arguments.weights, general, folder, environment)
    _describe_offline(detector, general, folder / "offline", state, environment)

    console.print(f"The state lies in [bold]{state}[/]; trials and logs in {folder / 'experiments'}")
    for number, data in enumerate(data_sets, start=1):
        console.rule(f"Experiment {number} of {len(data_sets)}: {data.name}{_label(data)}")
        timing = _experiment(data, detector, folder, environment)
        console.print(_results(Platform(state).tasks()[-1], data, detector))
        console.print(timing)
    console.print(f"Look into it: hyperfd tasks --state {state}")


def _environment(folder: Path) -> dict[str, str]:
    """Everything that the demo keeps, NNI's list of experiments included, stays in its own folder."""
    own = {"HOME": folder, "XDG_DATA_HOME": folder, "XDG_CACHE_HOME": folder / "cache"}
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # nnictl, python3 and hyperfd
    return os.environ | {name: str(path) for name, path in own.items()} | {"PATH": programs}


def _synthetic(folder: Path, domain: str, environment: dict[str, str], images=(64, 32, 0), seed: int = 0) -> Path:
    if not (folder / "train.json").exists():
        counts = [str(n) for n in images]
        _run("hyperfd", "synthetic", folder, "--domain", domain, "--images", *counts, "--seed", seed, env=environment)
    return folder


def _data_sets(folder: Path) -> list[Path]:
    found = sorted(path.parent for path in folder.glob("*/train.json") if (path.parent / "val.json").exists())
    if len(found) < 2:
        sys.exit(f"demo: {folder} has {len(found)} sub-folders with train.json and val.json; two data sets are needed")
    return found[:2]


def _detector(weights: Path | None, general: Path, folder: Path, environment: dict[str, str]) -> Detector:
    if weights is not None:
        config = CONFIGS / "retinaface_mobilenet025.py"
        return Detector(weights.resolve(), config, size=320, epochs=5, about=weights.name)
    config, path = CONFIGS / "retinaface_mobilenetv2_imagenet.py", folder / "detector.safetensors"
    detector = Detector(path, config, size=160, epochs=20, about="ImageNet, synthetic scenes")
    if not path.exists():
        console.print("Training the detector to start from, on synthetic scenes (about a minute) ...")
        command = [sys.executable, "pretrain.py", "--data", general, "--out", path, "--weights", "imagenet"]
        sizes = ["--size", 160, "--epochs", 16, "--val-interval", 4, "--batch-size", 8, "--workers", 0]
        _run(*command, "--config", config, *sizes, cwd=TRIAL_CODE, env=environment)
    return detector


def _describe_offline(detector: Detector, general: Path, out: Path, state: Path, environment: dict[str, str]) -> None:
    """The server's own data, which carries meta-features from one extractor version to the next."""
    if state.exists():
        return
    command = [sys.executable, "describe.py", "--data", general, "--weights", detector.weights, "--out", out]
    sizes = ["--config", detector.config, "--size", detector.size, "--workers", 0]
    _run(*command, *sizes, cwd=TRIAL_CODE, env=environment)
    _run("hyperfd", "offline", *sorted(out.glob("*.safetensors")), "--state", state, env=environment)


def _experiment(data: Path, detector: Detector, folder: Path, environment: dict[str, str]) -> str:
    """One NNI experiment from `nnictl create` to `nnictl stop`; says what happens meanwhile, and returns its timing."""
    port, created = _free_port(), time.time()
    environment = environment | {
        "HYPERFD_DATA": str(data),
        "HYPERFD_WEIGHTS": str(detector.weights),
        "HYPERFD_CONFIG": str(detector.config),
        "HYPERFD_SIZE": str(detector.size),
        "HYPERFD_EPOCHS": str(detector.epochs),
    }
    with _nni(port, folder, environment) as api:
        console.print(f"Web UI while it runs: [bold]http://localhost:{port}[/]")
        seen: dict[str, str] = {}
        while (status := _get(f"{api}/check-status"))["status"] not in ("DONE", "ERROR"):
            _say_changes(_get(f"{api}/trial-jobs"), seen)
            time.sleep(1)
        _say_changes(_get(f"{api}/trial-jobs"), seen)
        if status["status"] == "ERROR":
            sys.exit("demo: the experiment ended with an error: " + "\n".join(status["errors"]))
        return _timing(created, _get(f"{api}/trial-jobs"))


def _timing(created: float, trials: list[dict]) -> str:
    """How long the first fine-tuning trial had to be waited for, and the share of time in which none ran."""
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
        f"{end - created:.0f} s in all; the first fine-tuning trial started {spans[0][0] - created:.1f} s after "
        f"'nnictl create'; {1 - busy / (end - created):.0%} of the time no trial was fine-tuning"
    )


@contextmanager
def _nni(port: int, folder: Path, environment: dict[str, str]) -> Iterator[str]:
    config = ROOT / "examples" / "demo.yml"
    experiments = folder / "experiments"
    experiments.mkdir(exist_ok=True)
    _run("nnictl", "create", "--config", config, "--port", port, env=environment, cwd=experiments)
    try:
        yield f"http://localhost:{port}/api/v1/nni"
    finally:
        _run("nnictl", "stop", "--port", port, env=environment)


def _say_changes(trials: list[dict], seen: dict[str, str]) -> None:
    for trial in trials:
        if seen.get(trial["trialJobId"]) != trial["status"]:
            seen[trial["trialJobId"]] = trial["status"]
            console.print(f"  {time.strftime('%H:%M:%S')} trial {trial['sequenceId']}: {trial['status'].lower()}")


def _results(task: Task, data: Path, detector: Detector) -> Table:
    table = Table(title=f"Task {task.id}: {data.name}{_label(data)}; start: {detector.about}")
    for column in ("configuration", "predicted rank", "AP@50 before", "AP@50 after", "time"):
        table.add_column(column, justify="left" if column == "configuration" else "right")
    for trial in task.trials:
        if trial.phase == FINE_TUNE:
            after = trial.status if trial.performance is None else f"{trial.performance:.3f}"
            seconds = (trial.ended - trial.started).total_seconds() if trial.ended else 0
            configuration = " ".join(str(value) for value in trial.configuration.values())
            before = "-" if task.baseline is None else f"{task.baseline:.3f}"
            table.add_row(
                configuration, f"{trial.rank} of {task.settings['candidates']}", before, after, f"{seconds:.0f} s"
            )
    table.caption = f"configuration: {', '.join(task.space.definition)}"
    return table


def _label(data: Path) -> str:
    return " (synthetic)" if '"synthetic"' in (data / "train.json").read_text()[:2000] else ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def _get(url: str) -> object:
    response = requests.get(url, timeout=20)
    response.raise_for_status()
    return response.json()


def _run(*command: object, cwd: Path = ROOT, env: dict[str, str]) -> None:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"demo: '{' '.join(words)}' failed:\n{done.stdout}")


if __name__ == "__main__":
    main()
