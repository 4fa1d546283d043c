"""What a client has to tell a server that is away: on this machine's disk, in order, until it is acknowledged."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nni_hyperfd.platform import StateError, default_state


@dataclass(frozen=True)
class Call:
    """A request that changes something and has no answer.

    Attributes:
        method: of HTTP.
        place: below ``/v1/``.
        body: a JSON object, or None.
        fails: parameter id of the trial that has failed if the server refuses this, or None.
    """

    method: str
    place: str
    body: str | None = None
    fails: int | None = None


class Outbox:
    """Calls that a server has not acknowledged. What a method has changed is on the disk when it returns.

    Args:
        file: an SQLite file, made by the first call and removed by `discard`.

    Raises:
        StateError: from any method, when the file cannot be read or written.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._opened: sqlite3.Connection | None = None

    @classmethod
    def of(cls, experiment: str) -> Outbox:
        """The outbox of an experiment, in the user's data folder."""
        return cls(default_state().parent / "outbox" / f"{quote(experiment, safe='')}.sqlite")

    def __len__(self) -> int:
        return int(self._do("SELECT count(*) FROM calls")[0][0]) if self.file.exists() else 0

    def add(self, call: Call) -> int:
        """Add a call at the end, and return its number."""
        row = (call.method, call.place, call.body, call.fails)
        return int(
            self._do("INSERT INTO calls (method, place, body, fails) VALUES (?, ?, ?, ?) RETURNING id", *row)[0][0]
        )

    def first(self) -> tuple[int, Call] | None:
        """The call to make next, after its number; None for an empty outbox."""
        if not self.file.exists():
            return None
        for number, *fields in self._do("SELECT id, method, place, body, fails FROM calls ORDER BY id LIMIT 1"):
            return number, Call(*fields)
        return None

    def replace(self, number: int, call: Call | None) -> None:
        """Put a call in another one's place; None removes it."""
        if call is None:
            self._do("DELETE FROM calls WHERE id = ?", number)
        else:
            row = (call.method, call.place, call.body, call.fails)
            self._do("UPDATE calls SET method = ?, place = ?, body = ?, fails = ? WHERE id = ?", *row, number)

    def discard(self) -> None:
        """Remove the file of an empty outbox."""
        self.close()
        self.file.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _do(self, statement: str, *values: str | int | None) -> list[tuple[Any, ...]]:
        try:
            with self._connection() as connection:
                return connection.execute(statement, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            raise StateError(
                f"outbox {self.file}: it cannot be used ({error}); see that the disk has room and the file is yours"
            ) from None

    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.file, os.O_CREAT | os.O_RDWR, 0o600))  # results are their owner's
            opened = sqlite3.connect(self.file, check_same_thread=False)
            opened.execute("PRAGMA synchronous = EXTRA")
            # AUTOINCREMENT: a number is never used twice.
            opened.execute(
                "CREATE TABLE IF NOT EXISTS calls (id INTEGER PRIMARY KEY AUTOINCREMENT, method TEXT NOT NULL, "
                "place TEXT NOT NULL, body TEXT, fails INTEGER)"
            )
            self._opened = opened
        return self._opened
