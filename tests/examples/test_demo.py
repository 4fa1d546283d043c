"""The timing that the demo prints, from hand-made records of NNI; `make demo` itself is a long test."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


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


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_demo_runs_from_start_to_end(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py", "--folder", tmp_path / "demo"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("Task 1: masked_night (synthetic)", "Task 2: cartoon_fisheye (synthetic)", "predicted rank"):
        assert words in done.stdout
