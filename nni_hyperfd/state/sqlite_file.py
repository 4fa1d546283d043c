"""A state in one SQLite file, shared by all experiments of a user."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError

from nni_hyperfd.state import migrations
from nni_hyperfd.state.database import READ_ONLY, Database
from nni_hyperfd.state.errors import StateError
from nni_hyperfd.state.tables import Base

_logger = logging.getLogger(__name__)

_APPLICATION_ID = 0x48464431  # "HFD1": tells our files from other people's SQLite files
_SMALLEST = 512  # bytes; of one page, of which an SQLite file has at least one
_BUSY_SECONDS = 120  # transactions take milliseconds; but an upgrade of a large state holds the others up


class SqliteFile(Database):
    """Opens or creates a state file.

    A state of an earlier format is copied beside itself (``NAME.formatN``) and upgraded, in one transaction.

    Args:
        path: the file.
        warm_start: another state, whose content a new file begins with; a file that exists is left as it is.
        backup: whether an upgrade leaves a copy of the earlier format.
        create: whether the file is made when it does not exist.
        upgrade: whether one of an earlier format is upgraded.

    Raises:
        StateError: the file is damaged, is no state of ours, was written by a newer version, or cannot be written. It
            is refused as it is, never overwritten.
    """

    def __init__(
        self,
        path: Path,
        warm_start: Path | None = None,
        backup: bool = True,
        create: bool = True,
        upgrade: bool = True,
    ) -> None:
        self.path = path
        with self.readable_errors("open"):
            if not self.path.exists():
                self._check_may_change(0, create, upgrade)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if warm_start is not None and not self.path.exists():
                self._begin_with(warm_start)
            self._check_size()
            self.engine = sqlite_engine(self.path)
            if (version := self._format()) < migrations.FORMAT:
                self._check_may_change(version, create, upgrade)
                self._create_or_upgrade(backup)
            self._write_ahead()  # only now: it is written into the file, and other people's files stay as they are

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return str(self.path)

    @contextmanager
    def readable_errors(self, action: str) -> Iterator[None]:
        """Within the block, errors of the file system and of SQLite become a `StateError` that says what to do."""
        try:
            yield
        except (DBAPIError, sqlite3.Error, OSError) as error:
            cause = str(error.orig if isinstance(error, DBAPIError) else getattr(error, "strerror", None) or error)
            if "malformed" in cause or "not a database" in cause:
                advice = "the file is damaged or no state; restore it from a backup or name another file"
            elif "full" in cause or "I/O" in cause or "No space" in cause:
                advice = "make room on the disk, then go on with 'nnictl resume'"
            elif "locked" in cause:
                advice = "another process holds it; try again when it has finished"
            else:
                advice = "check the path and its permissions"
            message = f"state {self.path}: cannot {action} it ({cause}); {advice}; nothing in it was changed"
            raise StateError(message) from error

    def _write_ahead(self) -> None:
        """Let readers read while another process writes.

        The first who opens a new file changes it. While another process writes to that file, SQLite refuses the change
        at once, whatever its timeout is, so the waiting is done here.
        """
        until = time.monotonic() + _BUSY_SECONDS
        with closing(self.engine.raw_connection()) as connection:
            while True:
                try:
                    connection.cursor().execute("PRAGMA journal_mode = WAL")
                    return
                except sqlite3.OperationalError as error:
                    if "locked" not in str(error) or time.monotonic() > until:
                        raise
                time.sleep(0.02)

    # -- a new file --------------------------------------------------------------------------------------------------

    def _begin_with(self, source: Path) -> None:
        """Copy another state, completely or not at all, unless a second experiment has done so meanwhile."""
        partial = self.path.with_name(f".{self.path.name}.{uuid4().hex}")
        try:
            try:
                _copy(source, partial)
            except sqlite3.Error as error:
                raise StateError(
                    f"warm start {source}: cannot read it ({error}); name another state or 'warm_start: none'"
                ) from None
            try:
                copied = SqliteFile(partial, backup=False)
                with closing(copied.engine.raw_connection()) as connection:  # a file of its own, without a journal
                    connection.cursor().execute("PRAGMA journal_mode = DELETE")
                copied.engine.dispose()
            except StateError as error:
                message = str(error).replace(f"state {partial}", f"warm start {source}")
                raise StateError(f"{message}; or begin with 'warm_start: none'") from None
            try:
                self.path.hardlink_to(partial)
            except FileExistsError:
                pass  # the other experiment's copy is as good
            except OSError:  # there are no links on this disk
                partial.rename(self.path)
        finally:
            partial.unlink(missing_ok=True)

    # -- what a file is ----------------------------------------------------------------------------------------------

    def _check_size(self) -> None:
        """SQLite takes a file of a few bytes for an empty database, and would overwrite it.

        The file itself is not opened: closing it would take away the locks of this process' connections to it, after
        which another process may remove the journal that they write to.
        """
        if self.path.exists() and 0 < self.path.stat().st_size < _SMALLEST:
            raise StateError(
                f"state {self.path}: the file is damaged or no state; restore it from a backup or name another file"
            )

    def _format(self) -> int:
        """The format of an intact state; 0 for an empty file."""
        with self.engine.execution_options(**{READ_ONLY: True}).begin() as connection:
            return self._checked_format(connection)

    def _checked_format(self, connection: Connection) -> int:
        application, version = (
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("application_id", "user_version")
        )
        if not application and not connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one():
            return 0
        if application != _APPLICATION_ID:
            raise StateError(f"state {self.path}: this is an SQLite file of another program; name another file")
        if version > migrations.FORMAT:
            raise StateError(
                f"state {self.path}: it was written by a newer nni_hyperfd (format {version}, this one reads up to "
                f"{migrations.FORMAT}); upgrade nni_hyperfd or name another file"
            )
        if (verdict := connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()) != "ok":
            verdict = " ".join(verdict.split())
            raise StateError(f"state {self.path}: the file is damaged ({verdict}); restore it from a backup")
        return int(version)

    def _create_or_upgrade(self, backup: bool) -> None:
        """Bring the file to the present format, in one transaction: killed at any point, it is as it was before."""
        engine = sqlite_engine(self.path, foreign_keys=False)  # while tables are made anew, references hang in the air
        try:
            with engine.begin() as connection:
                version = self._checked_format(connection)  # another process may have been faster
                if version == migrations.FORMAT:
                    return
                if version == 0:
                    Base.metadata.create_all(connection)
                    migrations.stamp(connection, migrations.FORMAT)
                    connection.exec_driver_sql(f"PRAGMA application_id = {_APPLICATION_ID}")
                else:
                    if backup:
                        self._back_up(version)
                    self._upgrade(connection, version)
                    if broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all():
                        raise StateError(
                            f"state {self.path}: it cannot be upgraded, {len(broken)} of its rows refer to missing "
                            "ones; restore it from a backup"
                        )
                connection.exec_driver_sql(f"PRAGMA user_version = {migrations.FORMAT}")
        finally:
            engine.dispose()

    def _upgrade(self, connection: Connection, version: int) -> None:
        try:
            migrations.upgrade(connection, version)
        except (DBAPIError, OSError):
            raise  # of the disk, not of what is in the state
        except Exception as error:
            raise StateError(
                f"state {self.path}: its format {version} cannot be upgraded ({type(error).__name__}: {error}); "
                "restore it from a backup, or save its experience with the earlier version's 'hyperfd export'"
            ) from error

    def _back_up(self, version: int) -> None:
        """Copy the file beside itself before an upgrade."""
        name, number = f"{self.path.name}.format{version}", 1
        while (backup := self.path.with_name(name if number == 1 else f"{name}-{number}")).exists():
            number += 1
        partial = backup.with_name(f".{backup.name}.{uuid4().hex}")
        try:
            _copy(self.path, partial)
            partial.replace(backup)
        finally:
            partial.unlink(missing_ok=True)
        _logger.warning(
            "State %s was written by an earlier nni_hyperfd (format %d); it is upgraded, and a copy is kept in %s.",
            self.path,
            version,
            backup,
        )


def sqlite_engine(path: Path, foreign_keys: bool = True) -> Engine:
    """An SQLite file that several processes write: durable transactions, which wait for each other."""
    # As many connections as there are threads: who waits for the lock keeps one, and readers need not wait for that.
    pool = {"max_overflow": -1} if foreign_keys else {"poolclass": NullPool}
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_SECONDS}, **pool)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, see below
        for pragma in ("synchronous = FULL", f"foreign_keys = {'ON' if foreign_keys else 'OFF'}"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        # IMMEDIATE takes the write lock at once: two experiments queue up instead of failing half-way.
        reads = connection.get_execution_options().get(READ_ONLY)
        connection.exec_driver_sql(f"BEGIN {'DEFERRED' if reads else 'IMMEDIATE'}")

    return engine


def head_of(path: Path) -> tuple[bytes, bytes] | None:
    """Weights and importances (safetensors) of the newest extractor of another state; None where there are none."""
    column = "SELECT data FROM blobs JOIN extractors ON sha256 = {} WHERE head"
    try:
        with closing(_read_only(path)) as connection:
            weights, importance = (
                connection.execute(column.format(name)).fetchone() for name in ("weights", "importance")
            )
    except sqlite3.Error:
        return None
    return None if weights is None or importance is None else (weights[0], importance[0])


def _copy(source: Path, target: Path) -> None:
    """A complete copy of an SQLite file, whoever else has it open."""
    with closing(_read_only(source)) as given, closing(sqlite3.connect(target)) as copy:
        given.backup(copy)


def _read_only(source: Path) -> sqlite3.Connection:
    # Without its journal the file is complete; then it may lie where nothing can be written, as packages do.
    mode = "mode=ro" if source.with_name(f"{source.name}-wal").exists() else "mode=ro&immutable=1"
    return sqlite3.connect(f"{source.absolute().as_uri()}?{mode}", uri=True)
