"""Files that are complete or absent, folders that one process fills at a time, and results that survive a kill."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout


class FolderError(RuntimeError):
    """A folder or file of results cannot be used as asked; the message names it and says what to do."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Write a file completely or not at all.

    Yields:
        A path beside `path`, with the same suffix, to write to. It takes the place of `path` when the block ends
        normally, and is removed when the block fails. Parent folders are created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{uuid4().hex}{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file of bytes completely or not at all."""
    with atomic(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 text file completely or not at all."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: object, indent: int | None = 1) -> None:
    """Write a JSON file completely or not at all."""
    write_text(path, json.dumps(content, indent=indent))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, which is created if necessary; no other process can hold it within the block.

    Raises:
        FolderError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            yield
    except Timeout:
        raise FolderError(
            f"{folder}: another process is working on it; wait for it to end, or name another folder"
        ) from None


class RowFile:
    """A CSV file to which a long run adds one row at a time.

    A row is on disk when `add` returns. An incomplete last line, left by a killed run, is removed on opening.

    Args:
        path: the file; created by the first `add`.
        columns: names of the columns, in order.

    Attributes:
        rows: all rows of the file, as text by column.

    Raises:
        FolderError: the file has other columns.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, tuple(columns)
        content = path.read_bytes() if path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            os.truncate(path, len(whole))
        header, *rows = csv.reader(io.StringIO(whole.decode(), newline="")) if whole else [list(self.columns)]
        if tuple(header) != self.columns or any(len(row) != len(header) for row in rows):
            raise FolderError(
                f"{path}: it does not have the columns {', '.join(self.columns)}; name another folder or file"
            )
        self.rows = [dict(zip(self.columns, row, strict=True)) for row in rows]

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row.

        Args:
            row: a value for each column; line breaks in a value become spaces.
        """
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
    """Record in a JSON file the settings that a folder's results depend on.

    Settings that the file does not have yet are added; those it has must be the same.

    Raises:
        FolderError: naming the settings that were different for the earlier results, or the file cannot be read.
    """
    try:
        earlier = json.loads(path.read_text()) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise FolderError(f"{path}: it cannot be read ({error}); name another folder") from error
    given = json.loads(json.dumps(settings, default=str))
    if other := [name for name in given if name in earlier and earlier[name] != given[name]]:
        pairs = [f"{name} was {_short(earlier[name])}, is now {_short(given[name])}" for name in other[:3]]
        raise FolderError(
            f"{path.parent}: it holds results of other settings ({path.name}: {'; '.join(pairs)}); name another folder"
        )
    merged = {**given, **{name: earlier[name] for name in earlier if name not in given}}
    if merged != earlier or list(merged) != list(earlier):
        write_json(path, merged)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
