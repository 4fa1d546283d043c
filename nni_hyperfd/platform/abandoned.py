"""Tasks whose clients never came back."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, and_, or_, select

from nni_hyperfd.platform.auditing import audit
from nni_hyperfd.platform.platform import Platform
from nni_hyperfd.state.tables import TaskRow, TrialRow, now
from nni_hyperfd.task import Status


def close_abandoned(platform: Platform, since: datetime) -> tuple[list[int], list[int]]:
    """Close the clients' open tasks on which nothing has happened since a time.

    Their results are kept, and will be learned from; their running trials count as failed. A task without any result is
    removed.

    Args:
        platform: where they are.
        since: the time, with its zone.

    Returns:
        The tasks that were closed, and those that were removed.
    """
    with platform.store.read() as session:
        ids = list(session.scalars(select(TaskRow.id).where(_abandoned(since)).order_by(TaskRow.id)))
    closed = [task_id for task_id in ids if _close(platform, task_id, since)]
    return closed, [task_id for task_id in ids if task_id not in closed and platform.forget(task_id)]


def _close(platform: Platform, task_id: int, since: datetime) -> bool:
    """Close a task, if it is still abandoned and has a result."""
    with platform.store.write() as session:
        task = session.scalar(select(TaskRow).where(TaskRow.id == task_id, _abandoned(since)))
        if task is None or not any(trial.is_result for trial in task.trials):
            return False
        task.closed = now()
        for trial in list(task.trials):
            if trial.status is Status.PLANNED:
                session.delete(trial)
            elif trial.status is Status.RUNNING:
                trial.status, trial.ended = Status.FAILED, task.closed
                trial.reason = f"the client has not been heard of since {since:%Y-%m-%d}"
    audit("abandoned task closed", task=task_id)
    return True


def _abandoned(since: datetime) -> ColumnElement[bool]:
    alive = TaskRow.trials.any(or_(TrialRow.started >= since, TrialRow.ended >= since))
    return and_(TaskRow.closed.is_(None), TaskRow.dataset.is_(None), TaskRow.created < since, ~alive)
