"""Requests of another version of the protocol are told so, and not that there is no such page."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

import nni_hyperfd
from nni_hyperfd.platform.protocol import VERSION, VERSION_HEADER
from nni_hyperfd.server.problems import problem

_PATH = re.compile(r"/v(\d{1,9})(/.*)?")


class OneVersion:
    """Refuses requests that name another version, in their path or their header; they need not have the header.

    Args:
        app: what answers the others.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            in_path = _PATH.fullmatch(scope["path"])
            said = dict(scope["headers"]).get(VERSION_HEADER.lower().encode(), b"")
            asked = {in_path[1] if in_path else "", said.decode("latin-1")} - {"", str(VERSION)}
            if asked:
                await _refused(min(asked))(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _refused(asked: str) -> ASGIApp:
    detail = (
        f"the request is of version {asked[:9]!r} of the protocol, this server (nni_hyperfd {nni_hyperfd.__version__}) "
        f"speaks version {VERSION}; install an nni_hyperfd of that version at the client, or upgrade the server"
    )
    return problem("protocol", 400, detail)
