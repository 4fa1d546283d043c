"""The timing that the demo prints, from hand-made records of NNI, and its end when it is stopped; all of it is long."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nni_hyperfd.datasets import synthetic
from support import ROOT
from support.processes import Marked, command, is_dispatcher


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("demo", ROOT / "examples" / "demo.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _trial(start: float, end: float, **parameters: object) -> dict:
    record = json.dumps({"parameter_id": 0, "parameters": parameters})
    return {"startTime": 1000 * start, "endTime": 1000 * end, "hyperParameters": [record]}


def test_time_in_which_trials_overlap_counts_once(demo) -> None:
    trials = [
        _trial(105, 110, phase="extract"),
        _trial(112, 152, lr=1),
        _trial(122, 162, lr=2),
        _trial(170, 180, lr=3),
        _trial(190, 200, phase="learn"),
    ]
    # Created at 100 and over at 200; fine-tuning from 112 to 162 and from 170 to 180: 60 of 100 seconds.
    timing = demo._timing(100.0, trials)
    assert "100 s in all" in timing
    assert "started 12.0 s after" in timing
    assert "40% of the time no trial was fine-tuning" in timing


def test_a_folder_with_one_data_set_is_refused(demo, tmp_path: Path) -> None:
    (tmp_path / "only").mkdir()
    for split in ("train", "val"):
        (tmp_path / "only" / f"{split}.json").write_text("{}")
    with pytest.raises(SystemExit, match="two data sets are needed"):
        demo._data_sets(tmp_path)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's folder with what it makes before its first experiment, but few and small images and one epoch."""
    folder = tmp_path_factory.mktemp("demo")
    for name, domain in {
        "general": "plain",
        "masked_night": "masked_night",
        "cartoon_fisheye": "cartoon_fisheye",
    }.items():
        synthetic.make(folder / name, domain, images=(6, 3, 0), size=96)
    config = ROOT / "trial_code" / "configs" / "retinaface_mobilenetv2_imagenet.py"
    out = ["--data", folder / "general", "--config", config, "--out", folder / "detector.safetensors"]
    sizes = ["--size", "96", "--epochs", "1", "--val-interval", "1", "--batch-size", "3", "--workers", "0"]
    subprocess.run(
        [sys.executable, ROOT / "trial_code" / "pretrain.py", *out, *sizes], check=True, capture_output=True, cwd=folder
    )
    return folder


@pytest.fixture
def processes() -> Iterator[Marked]:
    """The demo's processes; those that are left are killed in the end."""
    marked = Marked()
    yield marked
    marked.kill_all()


def _manager_is_there(processes: Marked) -> bool:
    """NNI starts, but is not ready yet."""
    return bool(processes.managers())


def _trial_is_there(processes: Marked) -> bool:
    """The experiment is in its middle."""
    alive = processes.alive()
    return any(map(is_dispatcher, alive)) and any("finetune.py" in command(process) for process in alive)


@pytest.mark.nni
@pytest.mark.parametrize(("moment", "number"), [(_manager_is_there, signal.SIGINT), (_trial_is_there, signal.SIGTERM)])
def test_a_demo_that_is_interrupted_leaves_nothing_running(
    prepared: Path, processes: Marked, moment: Callable[[Marked], bool], number: signal.Signals
) -> None:
    demo = subprocess.Popen(
        [sys.executable, ROOT / "examples" / "demo.py", "--folder", prepared],
        env=os.environ | processes.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not moment(processes):
        assert demo.poll() is None, demo.communicate()
        time.sleep(0.1)
    demo.send_signal(number)
    demo.send_signal(number)  # `make` passes on what the terminal has sent already
    output, errors = demo.communicate(timeout=120)
    left = [(process.pid, command(process)) for process in processes.alive()]
    assert left == [], output + errors
    assert demo.returncode == 128 + number
    assert errors == "demo: stopped, and all that it had started; the same command starts again\n"


@pytest.mark.long
def test_the_demo_runs_from_start_to_end(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py", "--folder", tmp_path / "demo"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("Task 1: masked_night (synthetic)", "Task 2: cartoon_fisheye (synthetic)", "predicted rank"):
        assert words in done.stdout
