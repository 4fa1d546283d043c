"""What a trial prints does not say where its images lie and what they are called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nni_hyperfd.privacy.redaction import Redaction


@pytest.fixture
def data(tmp_path):
    for name in ("images/Hans Mustermann.JPG", "images/berlin/1.png", "images/11.png", "train.json"):
        (tmp_path / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "faces" / name).write_text("")
    return tmp_path / "faces"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "{}/train.json: image 5 (Hans Mustermann.JPG) cannot be decoded",
            "DATA/train.json: image 5 (IMAGE) cannot be",
        ),
        ("{}/images/berlin/1.png and images/berlin/1.png, berlin/1.png", "DATA/IMAGE and IMAGE, IMAGE"),
        ("11.png 1.png", "IMAGE IMAGE"),
        ("weights.pth of a.jpg at 1.5", "weights.pth of a.jpg at 1.5"),
    ],
)
def test_folder_and_names_are_replaced_and_nothing_else(data, text, told):
    assert Redaction(data)(text.format(data)).startswith(told)


def test_a_relative_folder(data, monkeypatch):
    monkeypatch.chdir(data.parent)
    redaction = Redaction(Path("faces"))
    assert redaction(f"faces/train.json: faces in {data}") == "DATA/train.json: faces in DATA"
    monkeypatch.chdir(data)
    assert Redaction(Path("."))("a.b ./c") == "a.b ./c"


def test_streams_loggers_warnings_and_errors_of_a_process(data):
    code = f"""
import logging, sys, warnings
from pathlib import Path
from nni_hyperfd.privacy.redaction import install
install(Path({str(data)!r}))
print("printed", Path({str(data)!r}) / "images" / "11.png", flush=True)
logging.warning("logged %s", "Hans Mustermann.JPG")
logging.warning("%d", "no number")
sys.stderr.writelines(["several ", "11.png", "\\n"])
warnings.warn({str(data / "train.json")!r})
raise RuntimeError({str(data)!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "printed DATA/IMAGE\n" and done.returncode == 1
    assert "logged IMAGE\n" in done.stderr and "several IMAGE\n" in done.stderr and "Logging error" in done.stderr
    assert "UserWarning: DATA/train.json\n" in done.stderr
    assert done.stderr.endswith("RuntimeError: DATA\n") and str(data) not in done.stderr
