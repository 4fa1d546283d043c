"""What workers do for a platform, whatever tells them to: learn, and look after tasks that were left behind."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from threading import Event

from nni_hyperfd.platform import Platform
from nni_hyperfd.platform.abandoned import close_abandoned

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """How often workers look, and how long they wait for others.

    Attributes:
        every: seconds between two looks at the state, for what no queue has told; > 0.
        heartbeat: seconds between two signs of life of a worker.
        stalled: seconds without one after which others take over what it has begun.
        abandoned_days: days without any news after which a task is closed; > 0.
    """

    every: float = 60.0
    heartbeat: float = 10.0
    stalled: float = 40.0
    abandoned_days: float = 14.0


class Chores:
    """The work of one worker.

    Args:
        platform: where it learns within the call.
        pace: how often.
        stopping: set when the worker is to end, which it does after the task that it learns from.
    """

    def __init__(self, platform: Platform, pace: Pace, stopping: Event) -> None:
        self._platform, self._pace, self._stopping = platform, pace, stopping

    def learn(self, space_signature: str) -> None:
        """Learn all that is to be learned of a space, one task after another."""
        while not self._stopping.is_set() and self._platform.learning.learn_next(space_signature):
            pass

    def due(self) -> list[str]:
        """Close what was abandoned, and return the spaces in which there is something to learn."""
        since = datetime.now(timezone.utc) - timedelta(days=self._pace.abandoned_days)
        closed, removed = close_abandoned(self._platform, since)
        if closed or removed:
            _logger.warning("Abandoned tasks: %s closed, %s removed, for they had no result.", closed, removed)
        return self._platform.learning.due()
