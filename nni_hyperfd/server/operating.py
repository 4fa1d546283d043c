"""What a server's operator and a tenant may do beside running tasks: readiness, and deleting."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel

from nni_hyperfd.platform import forgetting, messages
from nni_hyperfd.platform.figures import waiting
from nni_hyperfd.server.dependencies import Operator, Own, Served
from nni_hyperfd.state.migrations import FORMAT

MOST_LAG = 3600.0
"""Seconds for which a closed task may wait to be learned from before the server counts as not ready."""

health, deleting = APIRouter(), APIRouter()


class Ready(BaseModel):
    """Whether a server can work.

    Attributes:
        database: "ok"; a database that does not answer is answered with a problem.
        format: of the state's tables.
        waiting: closed tasks that wait to be learned from.
        lag: seconds since the first of these was closed.
        ready: whether the lag is below the limit.
    """

    database: str
    format: int
    waiting: int
    lag: float
    ready: bool


@health.get("/ready")
def ready(platform: Served, response: Response) -> Ready:
    """Whether it can work: its database answers, and workers learn."""
    count, lag = waiting(platform.store)
    is_ready = lag <= MOST_LAG
    if not is_ready:
        response.status_code = 503
    return Ready(database="ok", format=FORMAT, waiting=count, lag=round(lag, 1), ready=is_ready)


@deleting.delete("/tasks/{task_id}/experience")
def delete_task(platform: Served, own: Own, task_id: Annotated[int, Path(ge=1, lt=2**63)]) -> messages.Deleted:
    """Delete a task with its description and results, whoever has learned from it; and say what is left of it."""
    own.task(task_id)  # of the tenant, or any for an operator
    return messages.Deleted.of(forgetting.forget_tasks(platform, [task_id]))


@deleting.delete("/tenants/{name}")
def delete_tenant(platform: Served, _operator: Operator, name: str) -> messages.Deleted:
    """Delete a tenant, its tokens and all its tasks; and say what is left of them."""
    platform.tenants.revoke(name)
    deleted = forgetting.forget_tenant(platform, name)
    platform.tenants.remove(name)
    return messages.Deleted.of(deleted)
