"""Which tasks there are to learn from, read from the state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state.store import UnknownTaskError
from nni_hyperfd.state.tables import TaskRow, TrialRow
from nni_hyperfd.state.views import TaskView


def count_closed(session: Session, space: SearchSpace) -> int:
    """How many tasks of a space that were learned from have results."""
    # A join, not EXISTS: PostgreSQL may look through all trials for every task of that.
    with_results = (
        select(func.count(TaskRow.id.distinct()))
        .join(TaskRow.trials)
        .where(TaskRow.space_signature == space.signature, TaskRow.learned.is_not(None), TrialRow.is_result)
    )
    return session.scalar(with_results) or 0


def closed_ids(session: Session, space: SearchSpace) -> tuple[list[int], list[int]]:
    """Ids of the learned tasks of a space that have something to rank: two different results or more.

    Returns:
        Those of clients and those of the platform's own data sets, each ascending.
    """
    rows = session.execute(
        select(TaskRow.id, TaskRow.dataset)
        .join(TaskRow.trials)
        .where(TaskRow.space_signature == space.signature, TaskRow.learned.is_not(None), TrialRow.is_result)
        .group_by(TaskRow.id)
        .having(func.min(TrialRow.performance) < func.max(TrialRow.performance))
        .order_by(TaskRow.id)
    ).all()
    return [id for id, dataset in rows if dataset is None], [id for id, dataset in rows if dataset is not None]


def task_row(session: Session, task_id: int) -> TaskRow:
    """The row of a task.

    Raises:
        UnknownTaskError: there is no such task.
    """
    row = session.get(TaskRow, task_id)
    if row is None:
        raise UnknownTaskError(f"there is no task {task_id}")
    return row


def tasks(session: Session, ids: Iterable[int] | None = None) -> Sequence[TaskView]:
    """Tasks in order of arrival: all, or those with the ids, of which a few hundred may be given."""
    query = select(TaskRow).order_by(TaskRow.id)
    if ids is not None:
        query = query.where(TaskRow.id.in_(ids))
    return [TaskView.of(row) for row in session.scalars(query)]
