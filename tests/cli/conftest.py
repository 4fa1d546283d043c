from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nni_hyperfd.cli import main
from nni_hyperfd.cli.console import console

Result = tuple[int, str, str]
"""Exit code, standard output, standard error."""


@pytest.fixture
def hyperfd(capsys, monkeypatch, tmp_path) -> Callable[..., Result]:
    """The command as the shell runs it, in this process."""
    monkeypatch.setenv("COLUMNS", "200")  # for consoles that are made from now on
    monkeypatch.setattr(console, "width", 200)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["hyperfd", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
            raise SystemExit(0)
        out, err = capsys.readouterr()
        return end.value.code or 0, out, err

    return run


@pytest.fixture(scope="session")
def two_tasks(make_lab, tmp_path_factory) -> bytes:
    """A state of two closed tasks."""
    with pytest.MonkeyPatch.context() as patch:
        lab = make_lab(tmp_path_factory.mktemp("cli"), patch)
        lab.run(lab.tuner("AbCd1234", budget=2))
        lab.run(lab.tuner("second", budget=2), lab.dataset(2))
        return lab.content()


@pytest.fixture
def state(tmp_path, two_tasks) -> Path:
    path = tmp_path / "state.sqlite"
    path.write_bytes(two_tasks)
    return path


@pytest.fixture
def space_file(tmp_path, lab) -> Path:
    path = tmp_path / "space.json"
    path.write_text(json.dumps(lab.space))
    return path
