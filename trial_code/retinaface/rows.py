"""Results of long runs: rows of a CSV file that are on disk at once, and notes of what they were measured with."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retinaface.job import JobError


class RowFile:
    """A CSV file that rows are added to; `rows` are all that it has, as text by column.

    A row is a line, and on disk when `add` returns. A last line that a killed run has left unfinished is taken away.
    Raises JobError for a file with other columns.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, tuple(columns)
        content = path.read_bytes() if path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            os.truncate(path, len(whole))
        header, *rows = csv.reader(io.StringIO(whole.decode(), newline="")) if whole else [self.columns]
        if tuple(header) != self.columns or any(len(row) != len(header) for row in rows):
            raise JobError(f"{path} does not have the columns {', '.join(self.columns)}; name another file with --out.")
        self.rows = [dict(zip(self.columns, row, strict=True)) for row in rows]

    def add(self, row: Mapping[str, Any]) -> None:
        """`row` has a value for each column; line breaks in it become spaces."""
        values = [" ".join(str(row[column]).splitlines()) for column in self.columns]
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        if not self.path.is_file() or not self.path.stat().st_size:
            writer.writerow(self.columns)
        writer.writerow(values)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(text.getvalue().encode())
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(dict(zip(self.columns, values, strict=True)))


def note(path: Path, settings: Mapping[str, Any]) -> None:
    """Write down in a JSON file, in this order, what results depend on; what it does not have yet is added.

    Raises JobError, naming them, if settings of earlier results were others.
    """
    earlier = json.loads(path.read_text()) if path.is_file() else {}
    given = json.loads(json.dumps(settings, default=str))
    if other := [name for name in given if name in earlier and earlier[name] != given[name]]:
        pairs = [f"{name} was {_short(earlier[name])}, is now {_short(given[name])}" for name in other[:3]]
        raise JobError(
            f"{path.parent} holds results of other settings ({path.name}: {'; '.join(pairs)}); name another folder with"
            " --out."
        )
    text = json.dumps({**given, **{name: earlier[name] for name in earlier if name not in given}}, indent=1)
    if not path.is_file() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(text)
        unfinished.replace(path)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
