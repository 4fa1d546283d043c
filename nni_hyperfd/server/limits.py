"""How many requests a tenant may send, and how long one may take."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from dataclasses import dataclass

from fastapi import Request
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nni_hyperfd.server.auth import OPEN, caller
from nni_hyperfd.server.problems import problem
from nni_hyperfd.task import SettingsError, TaskSettings

_logger = logging.getLogger(__name__)
_LEARNING = re.compile(r"/v\d+/tasks/\d+/(close|settle|prepare|next-trial|ranking|jobs/.*)")
MAX_CANDIDATES = 10_000
"""Configurations that one task may have drawn and ranked, which includes its budget."""


def check_settings(settings: TaskSettings) -> None:
    """See that a task does not ask for more work than a shared server should do for one.

    Raises:
        SettingsError: it does.
    """
    if settings.candidates > MAX_CANDIDATES:
        raise SettingsError(f"candidates: {settings.candidates} are more than this server takes ({MAX_CANDIDATES})")


@dataclass(frozen=True)
class Limits:
    """Of the requests to one server process.

    Attributes:
        requests_a_minute: of one tenant; a task of four picks takes some 25. Each process of a server counts its own.
        seconds: that a request may take which neither ranks nor learns.
    """

    requests_a_minute: int = 3000
    seconds: float = 60.0


class RateLimited:
    """Refuses the requests of a tenant beyond so many within the last minute.

    Args:
        app: what answers the others.
        limits: how many.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._rate = RateLimitItemPerMinute(limits.requests_a_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        name = caller(Request(scope)).name
        if self._limiter.hit(self._rate, name):
            await self._app(scope, receive, send)
            return
        wait = self._limiter.get_window_stats(self._rate, name).reset_time - time.time()
        detail = f"this tenant has sent {self._rate.amount} requests within a minute, and may send no more now"
        await problem("rate", 429, detail, retry_after=max(1, math.ceil(wait)))(scope, receive, send)


class TimeLimited:
    """Answers that the server is busy when a request takes too long, such as for a lock or a body that does not come.

    What it does goes on; it may be done, or not, when the request is sent again, as after a lost answer.

    Args:
        app: what answers the requests.
        limits: how long.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._seconds = app, limits.seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or _LEARNING.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        begun = late = False

        async def answer(message: Message) -> None:
            nonlocal begun
            if not late:
                begun = True
                await send(message)

        work = asyncio.ensure_future(self._app(scope, receive, answer))
        await asyncio.wait({work}, timeout=self._seconds)
        if begun or work.done():
            await work
            return
        late = True
        work.add_done_callback(_log_failure)
        _logger.error("%s %s has not ended within %s s", scope["method"], scope["path"], self._seconds)
        detail = f"the server could not do this within {self._seconds:g} seconds; try again later"
        await problem("busy", 503, detail)(scope, receive, send)


def _log_failure(work: asyncio.Future[None]) -> None:
    if not work.cancelled() and (error := work.exception()) is not None:
        _logger.error("a request that took too long has failed", exc_info=error)
