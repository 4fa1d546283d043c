"""The state as the platform uses it: transactions and blobs, on an SQLite file or in a PostgreSQL database."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from nni_hyperfd.state.database import READ_ONLY, Database
from nni_hyperfd.state.errors import RefusedError, StateError, UnknownTaskError
from nni_hyperfd.state.sqlite_file import SqliteFile, head_of, sqlite_engine
from nni_hyperfd.state.tables import BlobRow

__all__ = ["RefusedError", "StateError", "Store", "UnknownTaskError", "default_state", "head_of", "sqlite_engine"]

_SQLITE, _POSTGRESQL = "sqlite:///", "postgresql"


def default_state() -> Path:
    """The state that experiments share unless `state` names another: a file in the user's data folder."""
    return Path(platformdirs.user_data_path("nni_hyperfd")) / "state.sqlite"


class Store:
    """Opens or creates a state.

    Args:
        state: an SQLite file, by its path or as ``sqlite:///PATH``; or ``postgresql+psycopg://USER@HOST/DATABASE``.
        warm_start: another state file, whose content a new state begins with; one that exists is left as it is.
        create: whether a state is made where there is none.
        upgrade: whether a state of an earlier format is upgraded; None: a file is, a PostgreSQL database is not.

    Raises:
        StateError: the state is damaged, is none of ours, was written by a newer version, cannot be written, or may
            neither be made nor upgraded. It is refused as it is, never overwritten.
    """

    def __init__(
        self, state: str | Path, warm_start: Path | None = None, create: bool = True, upgrade: bool | None = None
    ) -> None:
        self.database = _database(state, warm_start, create, upgrade)

    @property
    def engine(self) -> Engine:
        """The engine of the database."""
        return self.database.engine

    @property
    def name(self) -> str:
        """What messages call the state."""
        return self.database.name

    @property
    def path(self) -> Path:
        """The file of a state that is one.

        Raises:
            RefusedError: it is none.
        """
        if not isinstance(self.database, SqliteFile):
            raise RefusedError(f"state {self.name}: this needs a state in a file; export it and import it into one")
        return self.database.path

    def close(self) -> None:
        """Let go of the file or the connections."""
        self.engine.dispose()

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction, durable at its end. Writers of other processes wait; a failure leaves no trace.

        Nothing is learned within: whoever needs long to find out what to write does so before, and checks here whether
        what he has read is still so.
        """
        with (
            self.database.readable_errors("write"),
            Session(self.engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One consistent view, which does not hold up writers."""
        engine = self.engine.execution_options(**{READ_ONLY: True})
        with self.database.readable_errors("read"), Session(engine, expire_on_commit=False) as session, session.begin():
            yield session

    def put(self, session: Session, data: bytes) -> str:
        """Keep `data` and return its sha256."""
        digest = hashlib.sha256(data).hexdigest()
        if session.get(BlobRow, digest) is None:
            session.add(BlobRow(sha256=digest, data=data))
            session.flush()
        return digest

    def get(self, session: Session, sha256: str) -> bytes:
        """The blob of that name, checked against it."""
        blob = session.get(BlobRow, sha256)
        if blob is None or hashlib.sha256(blob.data).hexdigest() != sha256:
            raise StateError(
                f"state {self.name}: the weights {sha256[:12]} are missing or damaged; restore the file from a backup, "
                "or save its experience with 'hyperfd export' and import it into a new state"
            )
        return blob.data


def _database(state: str | Path, warm_start: Path | None, create: bool, upgrade: bool | None) -> Database:
    name = str(state)
    if name.startswith(_POSTGRESQL):
        from nni_hyperfd.state.postgresql import PostgresqlDatabase

        return PostgresqlDatabase(name, warm_start, create, upgrade=upgrade is True)
    path = Path(name.removeprefix(_SQLITE))
    return SqliteFile(path, warm_start, create=create, upgrade=upgrade is not False)
