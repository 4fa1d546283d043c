"""Bodies that are too large are refused before they are in memory; packed ones are not taken."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nni_hyperfd.server.problems import Refusal, problem

MAX_BYTES = 2**20
"""Largest body of most routes: 50 times what any of them needs, and too little for a million keys."""
MAX_UPDATE_BYTES = 48 * 2**20
"""Largest update of an extractor: one of `method.weights.MAX_BYTES`, and its importances, as text."""

_WITH_UPDATE = re.compile(r"/v\d+/tasks/\d+/close")


class LimitedBodies:
    """Refuses what is too large, by its announced length or while it arrives.

    Args:
        app: what answers the others.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = MAX_UPDATE_BYTES if _WITH_UPDATE.fullmatch(scope["path"]) else MAX_BYTES
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if headers.get(b"content-encoding", b"identity") != b"identity":
            packed = problem("request", 415, "the body is packed (Content-Encoding); send it as it is")
            await packed(scope, receive, send)
        elif not length.isdigit() or int(length) > limit:
            await problem("too-large", 413, _too_large(limit))(scope, receive, send)
        else:
            await self._app(scope, _limited(receive, limit), send)


def _limited(receive: Receive, limit: int) -> Receive:
    """What receives a body of a length that was not announced, up to the limit."""
    arrived = 0

    async def limited() -> Message:
        nonlocal arrived
        message = await receive()
        arrived += len(message.get("body", b""))
        if arrived > limit:
            raise Refusal("too-large", 413, _too_large(limit))
        return message

    return limited


def _too_large(limit: int) -> str:
    return f"the body is larger than {limit} bytes"
