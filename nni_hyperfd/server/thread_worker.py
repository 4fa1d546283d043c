"""The worker of a state in a file: a thread of the server's process, which is the file's only one."""

from __future__ import annotations

import logging
from threading import Event, Thread

from nni_hyperfd.platform import Platform
from nni_hyperfd.server.chores import Chores, Pace
from nni_hyperfd.state.store import Store

_logger = logging.getLogger(__name__)


class ThreadWorker:
    """Learns when it is told to, and looks at its start and now and then for what it was not told.

    Args:
        pace: how often.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace, self._told, self._stopping = pace, Event(), Event()
        self._platform: Platform | None = None
        self._thread: Thread | None = None

    def put(self, space_signature: str) -> None:
        """Tell it that there is something to learn."""
        self._told.set()

    def begin(self, store: Store) -> None:
        """Start the thread, on a file whose server is in this process."""
        self._platform = Platform(store.path)  # of its own, which learns within the call
        self._thread = Thread(
            target=self._run, args=(Chores(self._platform, self._pace, self._stopping),), name="worker"
        )
        self._thread.start()

    def end(self) -> None:
        """Wait until the thread has ended, after the task that it learns from."""
        if self._thread is not None and self._platform is not None:
            self._stopping.set()
            self._told.set()
            self._thread.join()
            self._platform.store.close()

    def _run(self, chores: Chores) -> None:
        while not self._stopping.is_set():
            self._told.clear()  # before it looks: what is told from now on, it looks for again
            try:
                for space_signature in chores.due():
                    chores.learn(space_signature)
            except Exception:
                _logger.exception("The worker goes on in %g s.", self._pace.every)
            self._told.wait(self._pace.every)
