"""A state in a PostgreSQL database, for platforms that serve many data owners."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError

from nni_hyperfd.state import migrations
from nni_hyperfd.state.copying import copy_rows
from nni_hyperfd.state.database import READ_ONLY, Database
from nni_hyperfd.state.errors import StateError
from nni_hyperfd.state.sqlite_file import SqliteFile
from nni_hyperfd.state.tables import Base

_WRITERS = 0x48464431  # "HFD1": the advisory lock that writers of one database hold
_TABLES = {"blobs", "spaces", "extractors", "tasks", "trials", "encoders", "offline_datasets", "alembic_version"}
"""By which a state is known, in every format that PostgreSQL has held."""
_CONNECT_SECONDS = 10
_UNREACHABLE = ("08", "57P")  # SQLSTATE classes: connection exceptions, and a server that shuts down or starts


class PostgresqlDatabase(Database):
    """Opens a database, or makes the tables in an empty one.

    One of an earlier format is not upgraded by whatever opens it first: other machines may still use it.

    Args:
        url: ``postgresql+psycopg://USER:PASSWORD@HOST:PORT/DATABASE``; what it leaves out comes from libpq's variables.
        warm_start: a state file, whose content an empty database begins with.
        create: whether tables are made in an empty database.
        upgrade: whether one of an earlier format is upgraded.

    Raises:
        StateError: the database cannot be reached, is not empty and none of ours, was written by a newer version, or by
            an earlier one and is not to be upgraded.
    """

    def __init__(self, url: str, warm_start: Path | None = None, create: bool = True, upgrade: bool = False) -> None:
        try:
            self._url = make_url(url)
            self.engine = _engine(url)
        except (ArgumentError, ModuleNotFoundError) as error:
            raise StateError(
                f"state: the address is not usable ({error}); write postgresql+psycopg://USER@HOST/DATABASE, and have "
                "`pip install 'nni-hyperfd[server]'`"
            ) from None
        with self.readable_errors("open"):
            if (version := self._format()) < migrations.FORMAT:
                self._check_may_change(version, create, upgrade)
                self._create_or_upgrade(warm_start)

    @property
    def name(self) -> str:
        """The address without the password."""
        return self._url.render_as_string(hide_password=True)

    @contextmanager
    def readable_errors(self, action: str) -> Iterator[None]:
        """Within the block, errors of the database become a `StateError` that says what to do."""
        try:
            yield
        except DBAPIError as error:
            cause = " ".join(str(error.orig).split())
            state = getattr(error.orig, "sqlstate", None)
            if error.connection_invalidated or state is None or state.startswith(_UNREACHABLE):
                advice = "see that the database server runs and the address is right, then try again"
            elif state.startswith("53"):
                advice = "the database server is out of room, memory or connections; give it more, then try again"
            else:
                advice = "see the database server's log and the rights of its user"
            message = f"state {self.name}: cannot {action} it ({cause}); {advice}; nothing in it was changed"
            raise StateError(message) from error

    def _format(self) -> int:
        """The format of the tables; 0 for an empty database."""
        with self.engine.execution_options(**{READ_ONLY: True}).begin() as connection:
            return self._checked_format(connection)

    def _checked_format(self, connection: Connection) -> int:
        tables = inspect(connection).get_table_names()
        if not tables:
            return 0
        if not set(tables) >= _TABLES:
            raise StateError(f"state {self.name}: the database has tables of another program; name an empty one")
        version = int(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())
        if version > migrations.FORMAT:
            raise StateError(
                f"state {self.name}: it was written by a newer nni_hyperfd (format {version}, this one reads up to "
                f"{migrations.FORMAT}); upgrade nni_hyperfd or name another database"
            )
        return version

    def _create_or_upgrade(self, warm_start: Path | None) -> None:
        """Make the tables of the present format, or bring them to it, in one transaction, while no other writes."""
        with TemporaryDirectory() as folder, self.engine.begin() as connection:
            version = self._checked_format(connection)
            if version == migrations.FORMAT:
                return  # another process was faster
            if version > 0:
                migrations.upgrade(connection, version)
                return
            Base.metadata.create_all(connection)
            migrations.stamp(connection, migrations.FORMAT)
            if warm_start is not None:
                copy = SqliteFile(Path(folder) / "state.sqlite", warm_start)  # upgraded, while the original stays
                with copy.engine.begin() as given:
                    copy_rows(given, connection)
                copy.engine.dispose()


def _engine(url: str) -> Engine:
    engine = create_engine(
        url,
        # Times are kept without their zone, which is UTC in every table.
        connect_args={"options": "-c timezone=UTC", "connect_timeout": _CONNECT_SECONDS},
        pool_pre_ping=True,  # a connection that a restart of the server has broken is replaced
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get(READ_ONLY):
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        else:
            # Every statement after this one sees what the last writer has committed, because the isolation level is
            # READ COMMITTED; under a stricter one the view would be as old as the wait for the lock.
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS})")

    return engine
