"""Opening a platform to be served, with the queue that its database calls for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nni_hyperfd.platform import Platform
from nni_hyperfd.platform.served import ServedPlatform
from nni_hyperfd.server.chores import Pace
from nni_hyperfd.server.thread_worker import ThreadWorker
from nni_hyperfd.state.store import Store

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
    if state.startswith(_POSTGRESQL):
        from nni_hyperfd.server.job_queue import JobQueue, make_tables

        store = Store(state, warm_start)
        make_tables(store)
        store.close()
        queue = JobQueue(state)
        platform = ServedPlatform(state, warm_start, queue)
        try:
            yield platform
        finally:
            platform.close()
            queue.end()
        return
    worker = ThreadWorker(pace or Pace())
    platform, own = ServedPlatform(state, warm_start, worker), Platform(state)
    worker.begin(own)
    try:
        yield platform
    finally:
        worker.end()
        platform.close()
        own.store.close()
