"""What an operator wants to know of a platform, by counts that are cheap to make."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

from sqlalchemy import func, select

from nni_hyperfd.state.store import Store
from nni_hyperfd.state.tables import EncoderRow, ExtractorRow, TaskRow, TenantRow, TrialRow, now

NOBODY = "-"
"""The name of the tenant of tasks that are nobody's on a server: those of an embedded platform that became one."""


@dataclass(frozen=True)
class Use:
    """Of one tenant.

    Attributes:
        open: tasks that are not closed.
        closed: tasks that are.
        results: of all of them.
    """

    open: int
    closed: int
    results: int


@dataclass(frozen=True)
class Figures:
    """Of a platform.

    Attributes:
        use: by tenant.
        waiting: closed tasks that the encoder has not learned from.
        lag: seconds since the first of these was closed; 0 without any.
        extractors: versions of the extractor.
        encoders: versions of the encoders.
    """

    use: dict[str, Use]
    waiting: int
    lag: float
    extractors: int
    encoders: int


def waiting(store: Store) -> tuple[int, float]:
    """How many closed tasks wait to be learned from, and for how many seconds the first one has."""
    query = select(func.count(), func.min(TaskRow.closed)).where(TaskRow.learned.is_(None), TaskRow.closed.is_not(None))
    with store.read() as session:
        count, first = session.execute(query).one()
    return count, 0.0 if first is None else max(0.0, (now() - _utc(first)).total_seconds())


def figures(store: Store) -> Figures:
    """All figures, of clients' tasks alone."""
    client = TaskRow.dataset.is_(None)
    tasks = (
        select(TaskRow.tenant_id, func.count().filter(TaskRow.closed.is_(None)), func.count(TaskRow.closed))
        .where(client)
        .group_by(TaskRow.tenant_id)
    )
    results = (
        select(TaskRow.tenant_id, func.count())
        .join(TrialRow, TrialRow.task_id == TaskRow.id)
        .where(client, TrialRow.is_result)
        .group_by(TaskRow.tenant_id)
    )
    with store.read() as session:
        names: dict[int | None, str] = {id: name for id, name in session.execute(select(TenantRow.id, TenantRow.name))}
        counted = {id: (open_, closed) for id, open_, closed in session.execute(tasks)}
        brought = {id: count for id, count in session.execute(results)}
        extractors, encoders = (
            session.scalar(select(func.count()).select_from(table)) or 0 for table in (ExtractorRow, EncoderRow)
        )
    if None in counted:
        names[None] = NOBODY
    use = {name: Use(*counted.get(id, (0, 0)), brought.get(id, 0)) for id, name in names.items()}
    return Figures(use, *waiting(store), extractors, encoders)


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=timezone.utc)
