"""`hyperfd tune` that is stopped goes on, with a server as well, and one that cannot work says why.

docs/tutorial.md has the usual way.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra `server` is not installed")

from nni_hyperfd import Platform
from nni_hyperfd.datasets import synthetic
from support import serving
from support.processes import Marked, command

pytestmark = pytest.mark.nni

OPTIONS = "--size 96 --epochs 1 --val-interval 1 --batch-size 4 --workers 0"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.make(tmp_path_factory.mktemp("data") / "faces", "plain", images=(8, 3, 0), size=96)


class Tuning:
    """The command on a data set, with a home of its own."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.folder, self.out, self.state = folder, folder / "out", folder / "state.sqlite"
        self.processes = Marked()
        self.words = ["tune", data, "--budget", "1", "--out", self.out, "--options", OPTIONS]

    def start(self, *more: object) -> subprocess.Popen[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "NNI_"))}
        path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
        own = {"HOME": str(self.folder), "PATH": path, "COLUMNS": "300", "OMP_NUM_THREADS": "1"}
        script = "from nni_hyperfd.cli import main; main()"
        return subprocess.Popen(
            [sys.executable, "-c", script, *map(str, [*self.words, *more])],
            env=kept | own | self.processes.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip


@pytest.fixture
def tuning(drawn: Path, tmp_path: Path) -> Iterator[Tuning]:
    made = Tuning(drawn, tmp_path)
    yield made
    made.processes.kill_all()


@pytest.fixture
def server(tuning: Tuning) -> Iterator[list[object]]:
    """A server with the state of the tuning, as words of the command."""
    with serving.server(tuning.state) as running:
        token = tuning.folder / "token"
        token.write_text(running.token)
        token.chmod(0o600)
        yield ["--platform", running.address, "--token-file", token]


def test_a_stopped_command_leaves_nothing_running_and_goes_on(tuning: Tuning, server: list[object]) -> None:
    running = tuning.start(*server)
    while not any("finetune.py" in command(process) for process in tuning.processes.alive()):
        assert running.poll() is None, running.communicate()
        time.sleep(0.1)
    running.terminate()
    output, errors = running.communicate(timeout=120)
    assert running.returncode == 143 and "the same command goes on" in output, output + errors
    assert tuning.processes.alive() == []

    output, errors = (again := tuning.start(*server)).communicate(timeout=900)
    assert again.returncode == 0, output + errors
    assert "Going on with experiment" in output and "Result 1 of 1: AP@50" in output
    assert (tuning.out / "detector" / "model.onnx").is_file() and (tuning.out / "report.html").is_file()
    (task,) = [task for task in Platform(tuning.state).tasks() if task.dataset is None]
    assert task.closed is not None and task.best is not None
    assert tuning.processes.alive() == []


@pytest.mark.long
def test_what_the_first_trial_dies_of_is_said_and_nothing_stays(tuning: Tuning) -> None:
    (wrong := tuning.folder / "wrong.pth").write_text("no weights")
    failed = tuning.start("--state", tuning.state, "--start", wrong)
    output, errors = failed.communicate(timeout=600)
    assert failed.returncode == 1, output + errors
    assert "the first trial has failed: finetune.py: " in errors and "wrong.pth" in errors
    assert [task for task in Platform(tuning.state).tasks() if task.dataset is None] == []
    assert not (tuning.out / "settings.json").exists(), "with other settings the same folder is fine"
    assert tuning.processes.alive() == []
