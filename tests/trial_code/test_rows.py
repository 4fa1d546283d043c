"""Rows on disk, also after a kill; notes of settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from retinaface.job import JobError
from retinaface.rows import RowFile, note

COLUMNS = ("name", "value")


def test_rows_are_added_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.csv"
    rows = RowFile(path, COLUMNS)
    assert rows.rows == [] and not path.exists()
    rows.add({"name": "a", "value": 0.5})
    rows.add({"value": "", "name": 'two\nlines, "quoted"'})
    assert rows.rows == [{"name": "a", "value": "0.5"}, {"name": 'two lines, "quoted"', "value": ""}]
    assert RowFile(path, COLUMNS).rows == rows.rows


def test_a_row_that_was_cut_off_is_taken_away(tmp_path: Path) -> None:
    """Wherever the run was killed: what is left is a table, and goes on as one."""
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
    with pytest.raises(JobError, match="does not have the columns name, value"):
        RowFile(path, COLUMNS)
    assert path.read_text() == content


def test_settings_are_noted_and_others_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "out" / "settings.json"
    note(path, {"size": 160, "config": Path("a.py")})
    note(path, {"size": 160, "seed": 0})
    with pytest.raises(JobError, match=r"other settings .*: size was 160, is now 320; seed was 0, is now 1\)"):
        note(path, {"config": "a.py", "size": 320, "seed": 1})
    note(path, {"config": "a.py", "size": 160})
    assert list(json.loads(path.read_text()).items()) == [("config", "a.py"), ("size", 160), ("seed", 0)]
