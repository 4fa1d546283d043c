"""Requests whose bodies are too large are refused before they are in memory."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nni_hyperfd.server.problems import problem

MAX_BYTES = 48 * 2**20
"""Largest body: an update of the extractor of `method.weights.MAX_BYTES`, and its importances, as text."""


class LimitedBodies:
    """Refuses what is larger than `MAX_BYTES`, by its announced length or while it arrives.

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
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MAX_BYTES:
            await _TOO_LARGE(scope, receive, send)
            return
        arrived = 0

        async def limited() -> Message:
            nonlocal arrived
            message = await receive()
            arrived += len(message.get("body", b""))
            # Without an announced length: the rest is not read, and the request ends as one whose client went away.
            return message if arrived <= MAX_BYTES else {"type": "http.disconnect"}

        await self._app(scope, limited, send)


_TOO_LARGE = problem("too-large", 413, f"the body is larger than {MAX_BYTES} bytes")
