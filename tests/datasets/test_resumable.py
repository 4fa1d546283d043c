"""Folders in which an interrupted run goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nni_hyperfd.datasets import resumable
from nni_hyperfd.files import FolderError, atomic

SETTINGS = {"seed": 0, "categories": ["face"]}
PARTIAL = f".settings.{'0123456789abcdef' * 2}.json"


def check(folder: Path, settings: dict = SETTINGS) -> None:
    resumable.check(folder / "settings.json", folder / "report.json", settings)


def begin(folder: Path) -> None:
    resumable.begin(folder / "settings.json", SETTINGS)


def test_a_run_goes_on_with_the_same_settings_until_it_is_finished(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    check(folder)
    begin(folder)
    assert json.loads((folder / "settings.json").read_text()) == SETTINGS
    check(folder)
    begin(folder)
    with pytest.raises(FolderError, match="new: it holds results of other settings .*seed was 0, is now 1"):
        check(folder, {**SETTINGS, "seed": 1})
    (folder / "report.json").touch()
    with pytest.raises(FolderError, match=r"new: it holds a finished run \(report.json\)"):
        check(folder)


def test_checking_writes_nothing(tmp_path: Path) -> None:
    check(tmp_path / "new")
    check(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["[1]", "no json", "{}", '{"seed": 0}'])
def test_settings_of_another_program_are_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(FolderError, match="settings.json: it was not written by this command"):
        check(tmp_path)
    assert (tmp_path / "settings.json").read_text() == content


@pytest.mark.parametrize("name", ["notes.txt", ".git", ".settings.json", ".notes.0123.json"])
def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(FolderError, match="is not empty"):
        check(tmp_path)
    with pytest.raises(FolderError, match="is not empty"):
        check(tmp_path / name)


def test_files_that_a_killed_run_was_writing_are_removed(tmp_path: Path) -> None:
    (tmp_path / PARTIAL).touch()
    check(tmp_path)  # killed before its settings were noted
    begin(tmp_path)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / PARTIAL.replace(".json", ".npy")).touch()
    (tmp_path / "parts" / ".mine.npy").touch()
    check(tmp_path)
    begin(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".mine.npy", "parts", "settings.json"]


def test_partial_files_are_those_of_atomic_writes(tmp_path: Path) -> None:
    for name in ("settings.json", "net-birch.npy", "no_suffix"):
        with atomic(tmp_path / name) as partial:
            partial.touch()
            check(tmp_path)
        (tmp_path / name).unlink()
