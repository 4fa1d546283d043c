"""The worker of a state in a file: a thread of the server's process, which is the file's only one."""

from __future__ import annotations

import logging
from threading import Event, Thread

from nni_hyperfd.platform import Platform
from nni_hyperfd.server.chores import Chores, Pace

_logger = logging.getLogger(__name__)


class ThreadWorker:
    """Learns when it is told to, and looks at its start and now and then for what it was not told.

    Args:
        pace: how often.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace, self._told = pace, Event()
        self._chores: Chores | None = None
        self._thread: Thread | None = None

    def put(self, space_signature: str) -> None:
        """Tell it that there is something to learn."""
        self._told.set()

    def begin(self, platform: Platform) -> None:
        """Start the thread.

        Args:
            platform: one of its own on the state, which learns within the call.
        """
        chores = self._chores = Chores(platform, self._pace)
        self._thread = Thread(target=self._run, args=(chores,), name="worker")
        self._thread.start()

    def end(self) -> None:
        """Wait until the thread has ended, after the task that it learns from."""
        if self._chores is not None and self._thread is not None:
            self._chores.stopping.set()
            self._told.set()
            self._thread.join()

    def _run(self, chores: Chores) -> None:
        while not chores.stopping.is_set():
            self._told.clear()  # before it looks: what is told from now on, it looks for again
            try:
                for space_signature in chores.due():
                    chores.learn(space_signature)
            except Exception:
                _logger.exception("The worker goes on in %g s.", self._pace.every)
            self._told.wait(self._pace.every)
