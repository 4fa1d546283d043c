"""Files that are complete or absent, folders with one writer, rows that survive a kill, notes of settings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nni_hyperfd.files import FolderError, RowFile, atomic, locked, note, write_bytes, write_json, write_text

COLUMNS = ("name", "value")


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_text(path, "first")
    with pytest.raises(ZeroDivisionError), atomic(path) as partial:
        assert partial.suffix == ".txt" and partial.parent == path.parent
        partial.write_text("half")
        assert path.read_text() == "first"
        raise ZeroDivisionError
    assert path.read_text() == "first" and list(path.parent.iterdir()) == [path]
    write_bytes(path, b"second")
    assert path.read_bytes() == b"second" and list(path.parent.iterdir()) == [path]


def test_a_file_of_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ä": [1, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"ä": [1, None]}
    with pytest.raises(TypeError):
        write_json(tmp_path / "b.json", {"path": tmp_path})
    assert not (tmp_path / "b.json").exists()


def test_a_folder_has_one_holder(tmp_path: Path) -> None:
    """Whether the other one is this process or another, and until the block ends, however it does."""
    folder = tmp_path / "new"
    code = "import sys, pathlib, nni_hyperfd.files as f\nwith f.locked(pathlib.Path(sys.argv[1])): print('held')"
    with locked(folder):
        with pytest.raises(FolderError, match="new: another process is working on it"), locked(folder):
            pass
        other = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
        assert other.returncode == 1 and "FolderError" in other.stderr
    with pytest.raises(ZeroDivisionError), locked(folder):
        raise ZeroDivisionError
    assert subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True).stdout == b"held\n"


def test_rows_are_added_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.csv"
    rows = RowFile(path, COLUMNS)
    assert rows.rows == [] and not path.exists()
    rows.add({"name": "a", "value": 0.5})
    rows.add({"value": "", "name": 'two\nlines, "quoted"'})
    assert rows.rows == [{"name": "a", "value": "0.5"}, {"name": 'two lines, "quoted"', "value": ""}]
    assert RowFile(path, COLUMNS).rows == rows.rows


def test_a_row_that_was_cut_off_is_removed(tmp_path: Path) -> None:
    """Wherever the run was killed: what is left is a table, and can be continued."""
    path = tmp_path / "rows.csv"
    rows = RowFile(path, COLUMNS)
    rows.add({"name": "a", "value": 1})
    rows.add({"name": "b", "value": 2})
    whole = path.read_bytes()
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        again = RowFile(path, COLUMNS)
        assert again.rows == rows.rows[: whole[:end].count(b"\n") - 1 if end > 12 else 0]
        again.add({"name": "c", "value": 3})
        assert RowFile(path, COLUMNS).rows == again.rows


@pytest.mark.parametrize("content", ["name,price\na,1\n", "name\na\n", "name,value\na\n"])
def test_another_table_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(content)
    with pytest.raises(FolderError, match="does not have the columns name, value"):
        RowFile(path, COLUMNS)
    assert path.read_text() == content


def test_settings_are_noted_and_others_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "out" / "settings.json"
    note(path, {"size": 160, "config": Path("a.py")})
    note(path, {"size": 160, "seed": 0})
    with pytest.raises(FolderError, match=r"other settings .*: size was 160, is now 320; seed was 0, is now 1\)"):
        note(path, {"config": "a.py", "size": 320, "seed": 1})
    note(path, {"config": "a.py", "size": 160})
    assert list(json.loads(path.read_text()).items()) == [("config", "a.py"), ("size", 160), ("seed", 0)]


def test_a_damaged_note_is_named(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(FolderError, match=r"settings.json: it cannot be read .*; name another folder"):
        note(tmp_path / "settings.json", {"size": 160})
