"""The state on disk: tables, blobs and transactions. One SQLite file, shared by all experiments of a user."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

import platformdirs
from sqlalchemy import JSON, Engine, Float, ForeignKey, Index, LargeBinary, UniqueConstraint, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

SCHEMA_VERSION = 2
_APPLICATION_ID = 0x48464431  # "HFD1": tells our files from other people's SQLite files
_SQLITE_HEADER = b"SQLite format 3\0"
_BUSY_SECONDS = 120  # closing a task trains the ranker inside its transaction; a second experiment waits for it


class StateError(RuntimeError):
    """The state cannot be used or written; what it held before is untouched."""


def default_state() -> Path:
    """The state that experiments share unless `state` names another: a file in the user's data folder."""
    return Path(platformdirs.user_data_path("nni_hyperfd")) / "state.sqlite"


def now() -> datetime:
    return datetime.now(timezone.utc)


class Base(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSON, list[float]: JSON, bytes: LargeBinary}


class Blob(Base):
    """Weights as safetensors, named by their content."""

    __tablename__ = "blobs"
    sha256: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[bytes]


class Space(Base):
    __tablename__ = "spaces"
    signature: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    definition: Mapped[dict[str, Any]]


class Extractor(Base):
    """One version of the meta-feature extractor. Version without weights: the seeded initial one.

    `weights` and `importance` name blobs, which are dropped when no task can need them any more. `described` stays: the
    meta-features of the server's own data sets under this version, by the sha256 of their features (safetensors).
    """

    __tablename__ = "extractors"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("extractors.id"))
    head: Mapped[bool]
    weights: Mapped[str | None]
    importance: Mapped[str | None]
    described: Mapped[bytes | None]
    created: Mapped[datetime] = mapped_column(default=now)


class Task(Base):
    """One data set's turn: one NNI experiment on one data set."""

    __tablename__ = "tasks"
    # How many tasks of a space are closed is asked before every pick.
    __table_args__ = (Index("ix_tasks_closed", "space_signature", "closed"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    experiment: Mapped[str] = mapped_column(unique=True)
    space_signature: Mapped[str] = mapped_column(ForeignKey("spaces.signature"))
    settings: Mapped[dict[str, Any]]
    extractor_id: Mapped[int] = mapped_column(ForeignKey("extractors.id"))
    meta_feature: Mapped[list[float] | None]
    num_images: Mapped[int | None]
    num_boxes: Mapped[int | None]
    baseline: Mapped[float | None]
    created: Mapped[datetime] = mapped_column(default=now)
    closed: Mapped[datetime | None]
    trials: Mapped[list[Trial]] = relationship(back_populates="task", order_by="Trial.id", lazy="selectin")
    space: Mapped[Space] = relationship(lazy="joined")


class Trial(Base):
    """One trial of a task: planned, then running, then succeeded or failed. The finished ones are the experience."""

    __tablename__ = "trials"
    __table_args__ = (UniqueConstraint("task_id", "parameter_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"), index=True)
    parameter_id: Mapped[int | None]
    phase: Mapped[str]
    status: Mapped[str] = mapped_column(default="planned")
    configuration: Mapped[dict[str, Any]]
    rank: Mapped[int | None]
    score: Mapped[float | None]
    performance: Mapped[float | None] = mapped_column(Float)
    reason: Mapped[str | None]
    started: Mapped[datetime | None]
    ended: Mapped[datetime | None]
    task: Mapped[Task] = relationship(back_populates="trials")


class Ranker(Base):
    """One version of a space's configuration encoder, trained towards one version of the extractor. `weights` names a
    blob, which only the newest version keeps."""

    __tablename__ = "rankers"
    id: Mapped[int] = mapped_column(primary_key=True)
    space_signature: Mapped[str] = mapped_column(ForeignKey("spaces.signature"), index=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"))
    extractor_id: Mapped[int] = mapped_column(ForeignKey("extractors.id"))
    weights: Mapped[str]
    created: Mapped[datetime] = mapped_column(default=now)


class OfflineDataset(Base):
    """Image features of one of the server's own data sets (D_off)."""

    __tablename__ = "offline_datasets"
    name: Mapped[str] = mapped_column(primary_key=True)
    features: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"))


class Store:
    """Opens or creates a state file.

    Args:
        path: the file.
        warm_start: another state, whose content a new file begins with; one that exists is left as it is.

    Raises:
        StateError: the file is damaged, is no state of ours, was written by a newer version, or cannot be written.
            It is refused as it is, never overwritten.
    """

    def __init__(self, path: str | Path, warm_start: Path | None = None) -> None:
        self.path = Path(path)
        with self._readable_errors("open"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if warm_start is not None and not self.path.exists():
                self._begin_with(warm_start)
            self._check_header()
            self._engine = sqlite_engine(self.path)
            with self._engine.begin() as connection:
                self._check_or_create(connection)
            # Only now: this is written into the file, and other people's files stay as they are.
            with closing(self._engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA journal_mode = WAL")

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction, durable at its end. Writers of other processes wait; a failure leaves no trace."""
        with self._readable_errors("write"), Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One consistent view, which does not hold up writers."""
        engine = self._engine.execution_options(begin="DEFERRED")
        with self._readable_errors("read"), Session(engine, expire_on_commit=False) as session, session.begin():
            yield session

    def put(self, session: Session, data: bytes) -> str:
        """Keep `data` and return its sha256."""
        digest = hashlib.sha256(data).hexdigest()
        if session.get(Blob, digest) is None:
            session.add(Blob(sha256=digest, data=data))
            session.flush()
        return digest

    def get(self, session: Session, sha256: str) -> bytes:
        """The blob of that name, checked against it."""
        blob = session.get(Blob, sha256)
        if blob is None or hashlib.sha256(blob.data).hexdigest() != sha256:
            raise StateError(
                f"state {self.path}: the weights {sha256[:12]} are missing or damaged; restore the file from a backup, "
                "or save its experience with 'hyperfd export' and import it into a new state"
            )
        return blob.data

    def _begin_with(self, source: Path) -> None:
        """Copy another state, complete or not at all, unless a second experiment has done so meanwhile."""
        partial = self.path.with_name(f".{self.path.name}.{uuid4().hex}")
        try:
            # Without its journal the file is complete; then it may lie where nothing can be written, as packages do.
            mode = "mode=ro" if source.with_name(f"{source.name}-wal").exists() else "mode=ro&immutable=1"
            url = f"{source.absolute().as_uri()}?{mode}"
            try:
                with closing(sqlite3.connect(url, uri=True)) as given, closing(sqlite3.connect(partial)) as copy:
                    given.backup(copy)
            except sqlite3.Error as error:
                raise StateError(
                    f"warm start {source}: cannot read it ({error}); name another state or 'warm_start: none'"
                ) from None
            try:
                Store(partial).close()
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

    def _check_header(self) -> None:
        """SQLite takes a file of a few bytes for an empty database, and would overwrite it."""
        if self.path.exists():
            with self.path.open("rb") as file:
                header = file.read(len(_SQLITE_HEADER))
            if header and header != _SQLITE_HEADER:
                raise StateError(
                    f"state {self.path}: the file is damaged or no state; restore it from a backup or name another file"
                )

    def _check_or_create(self, connection: Any) -> None:
        application, version = (
            connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("application_id", "user_version")
        )
        empty = not connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar()
        if empty and not application:
            connection.exec_driver_sql(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
            Base.metadata.create_all(connection)
            return
        if application != _APPLICATION_ID:
            raise StateError(f"state {self.path}: this is an SQLite file of another program; name another file")
        if version > SCHEMA_VERSION:
            raise StateError(
                f"state {self.path}: it was written by a newer nni_hyperfd (format {version}, this one reads up to "
                f"{SCHEMA_VERSION}); upgrade nni_hyperfd or name another file"
            )
        if version < SCHEMA_VERSION:
            raise StateError(
                f"state {self.path}: it was written by an older nni_hyperfd (format {version}, this one reads "
                f"{SCHEMA_VERSION}); save its experience with that one's 'hyperfd export', import it into a new state"
            )
        if (verdict := connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()) != "ok":
            verdict = " ".join(verdict.split())
            raise StateError(f"state {self.path}: the file is damaged ({verdict}); restore it from a backup")
        for index in Task.__table__.indexes:  # states from before it was thought of are of the same format
            index.create(connection, checkfirst=True)

    @contextmanager
    def _readable_errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, OSError) as error:
            cause = str(error.orig if isinstance(error, DBAPIError) else error.strerror or error)
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


def sqlite_engine(path: Path) -> Engine:
    """An SQLite file that several processes write: durable transactions, which wait for each other."""
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, see below
        for pragma in ("synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        # IMMEDIATE takes the write lock at once: two experiments queue up instead of failing half-way.
        connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('begin', 'IMMEDIATE')}")

    return engine
