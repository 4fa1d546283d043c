"""What an operator does with a whole state: upgrade, check and copy it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Connection, Select, func, select
from sqlalchemy.orm import Session

from nni_hyperfd.state.copying import copy_rows
from nni_hyperfd.state.errors import RefusedError, StateError
from nni_hyperfd.state.migrations import FORMAT
from nni_hyperfd.state.store import Store
from nni_hyperfd.state.tables import Base, BlobRow, ExtractorRow
from nni_hyperfd.state.versions import needed_blobs

_BLOBS = 100  # read at a time


@dataclass(frozen=True)
class Checked:
    """What a state is like.

    Attributes:
        format: of its tables.
        rows: how many there are, by table.
        faults: a sentence for each thing that is wrong.
    """

    format: int
    rows: dict[str, int]
    faults: list[str]


def upgrade(state: str) -> Checked:
    """Bring a state to the present format, in one transaction, and check it.

    Raises:
        StateError: there is none, or it cannot be upgraded; it is as it was then.
    """
    Store(state, create=False, upgrade=True).close()
    return check(state)


def check(state: str) -> Checked:
    """Look whether all rows refer to rows that are there, and all blobs are what they are named by; changes nothing.

    Raises:
        StateError: there is none, it is of an earlier format, or it cannot be read at all.
    """
    store = Store(state, create=False, upgrade=False)
    with store.read() as session:
        checked = Checked(FORMAT, _rows(session.connection()), [*_missing(session), *_damaged(session)])
    store.close()
    return checked


def copy(source: str, target: str) -> dict[str, int]:
    """Copy a state into an empty one, also while others write to it: the copy is of one moment.

    Args:
        source: a file or an address, as `Store` takes them.
        target: another one.

    Returns:
        How many rows were copied, by table.

    Raises:
        RefusedError: the target is not empty. Nothing in it has changed.
        StateError: one of them cannot be used. The target is empty then.
    """
    given = Store(source, create=False, upgrade=False)
    taking = Store(target, upgrade=False)
    with given.read() as reading, taking.write() as writing:
        there = {name: count for name, count in _rows(writing.connection()).items() if count}
        if there:
            name, count = next(iter(there.items()))
            raise RefusedError(f"state {taking.name}: it is not empty ({name}: {count}); name a new one")
        copied = copy_rows(reading.connection(), writing.connection())
        if not copied == _rows(writing.connection()) == _rows(reading.connection()):
            raise StateError(f"state {taking.name}: not all rows have arrived; nothing was kept, try again")
    given.close()
    taking.close()
    return copied


def _rows(connection: Connection) -> dict[str, int]:
    return {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in Base.metadata.sorted_tables
    }


def _missing(session: Session) -> Iterator[str]:
    """Which rows refer to others that are not there."""
    for table in Base.metadata.sorted_tables:
        for key in table.foreign_keys:
            if count := session.scalar(_dangling(key.parent, key.column)):
                yield f"{table.name}.{key.parent.name}: {count} rows refer to {key.column.table.name} that are missing"
    head_id = session.scalar(select(ExtractorRow.id).where(ExtractorRow.head))
    needed = needed_blobs(head_id or 0).subquery()
    (name,) = needed.c
    if count := session.scalar(select(func.count()).select_from(needed).where(name.not_in(select(BlobRow.sha256)))):
        yield f"blobs: {count} weights or features that versions and data sets need are missing"


def _dangling(column: Column[Any], referred: Column[Any]) -> Select[int]:
    """How many rows name something in a column that is not in the other one."""
    other = referred.table.alias()
    there = select(other.c[referred.name]).where(other.c[referred.name] == column).exists()
    return select(func.count()).select_from(column.table).where(column.is_not(None), ~there)


def _damaged(session: Session) -> Iterator[str]:
    """Which blobs are not what their name says."""
    for blob in session.scalars(select(BlobRow).execution_options(yield_per=_BLOBS)):
        if hashlib.sha256(blob.data).hexdigest() != blob.sha256:
            yield f"blobs: {blob.sha256[:12]} is damaged"
        session.expunge(blob)
