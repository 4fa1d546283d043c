"""Opening a platform to be served, with the queue that its database calls for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nni_hyperfd.platform.served import ServedPlatform
from nni_hyperfd.server.chores import Pace
from nni_hyperfd.server.thread_worker import ThreadWorker

if TYPE_CHECKING:
    from nni_hyperfd.server.job_queue import JobQueue

_POSTGRESQL = "postgresql"


@contextmanager
def served_platform(state: str, warm_start: Path | None = None, pace: Pace | None = None) -> Iterator[ServedPlatform]:
    """A platform to be served; beside a state in a file a worker learns in this process.

    Args:
        state: a file or an address, as `state.store.Store` takes them.
        warm_start: what a new state begins with.
        pace: of the worker in this process.

    Raises:
        StateError: the state cannot be used.
    """
    queue = _queue(state, pace or Pace())
    platform = ServedPlatform(state, warm_start, queue)
    try:
        queue.begin(platform.store)
        yield platform
    finally:
        queue.end()
        platform.close()


def _queue(state: str, pace: Pace) -> JobQueue | ThreadWorker:
    if not state.startswith(_POSTGRESQL):
        return ThreadWorker(pace)
    from nni_hyperfd.server.job_queue import JobQueue

    return JobQueue(state)
