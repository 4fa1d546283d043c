"""Every shell block of docs/tutorial.md, one after the other, as its reader would type them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT

pytestmark = pytest.mark.nni

PAGE = ROOT / "docs" / "tutorial.md"


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which the blocks were run, and what they printed."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("tutorial")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "HYPERFD_", "NNI_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    environment = kept | {"HOME": str(home), "PATH": path, "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    printed = ""
    for block in re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL):
        done = subprocess.run(
            ["bash", "-ec", block],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{block}{done.stdout}{done.stderr}"
        printed += done.stdout
    return folder, printed


def test_the_reader_gets_what_is_promised(typed: tuple[Path, str]) -> None:
    folder, printed = typed
    tuned = folder / "my-faces-tuned"
    for name in ("detector/model.onnx", "detector/card.md", "report.html", "experiment.yml"):
        assert (tuned / name).stat().st_size > 200
    assert len(json.loads((folder / "results.json").read_text())) > 0 and any((folder / "drawn").iterdir())
    assert (folder / "experiment.yml").is_file() and (folder / "converted" / "report.json").is_file()


def test_what_it_says_is_what_is_printed(typed: tuple[Path, str]) -> None:
    _, printed = typed
    for words in (
        "Ready: hyperfd tune DATA",
        "Splits: official: train, val, test.",
        "Nothing of it was stored or sent.",
        "AP@50 of the starting detector on the validation split, which is to beat: 0.",
        "Result 2 of 2: AP@50 0.",
        "Next: hyperfd detect my-faces-tuned/detector IMAGES --draw drawn",
        "1, 1 of them closed",
    ):
        assert words in printed, printed
