"""Who asks: every request names a token, which is looked up before its body is read.

Programs send it as `Authorization: Bearer TOKEN`. A browser may send it as the password of HTTP Basic (the name does
not matter), but only to look: what a browser sends by itself must not change anything for another site's page.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from nni_hyperfd.platform import Caller, ScopeError, StateError, Tenants, TokenError
from nni_hyperfd.server.problems import of_error
from nni_hyperfd.task import Scope as TokenScope

OPEN = frozenset({"/health/live", "/health/ready", "/openapi.json"})
"""Paths that need no token."""

SECONDS = 2.0
"""How long an answer of the state about a token is used; so a revoked or expired one may be let through that long."""

_LOOKING = ("GET", "HEAD", "OPTIONS")


class Authentication:
    """Lets through the requests of tenants; the others are refused.

    A token of scope `read` may look, one of scope `client` may also change something.

    Args:
        app: what answers the requests.
        tenants: of the platform.
    """

    def __init__(self, app: ASGIApp, tenants: Tenants) -> None:
        self._app, self._tenants = app, tenants
        self._known: dict[bytes, tuple[Caller, float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            found = await self._caller(_token(request))
            if found.scope is TokenScope.READ and request.method not in _LOOKING:
                raise ScopeError("this token may look only; use one of scope 'client'")
        except (TokenError, StateError) as error:
            await of_error(request, error)(scope, receive, send)
            return
        request.state.caller = found
        await self._app(scope, receive, send)

    async def _caller(self, token: str) -> Caller:
        key, now = hashlib.sha256(token.encode()).digest(), time.monotonic()
        found, until = self._known.get(key, (None, now))
        if found is None or until <= now:
            self._known.pop(key, None)
            found = await run_in_threadpool(self._tenants.caller, token)
            self._known[key] = found, now + SECONDS  # no more of them than there are valid tokens
        return found


def caller(request: Request) -> Caller:
    """Who asks."""
    found = request.state.caller
    assert isinstance(found, Caller)
    return found


def operator(request: Request) -> Caller:
    """Who asks, where only an operator may.

    Raises:
        ScopeError: the token is not of scope `admin`.
    """
    found = caller(request)
    if found.scope is not TokenScope.ADMIN:
        raise ScopeError("this is for the server's operator; it needs a token of scope 'admin'")
    return found


def _token(request: Request) -> str:
    """The token of a request.

    Raises:
        TokenError: it has none, or it is not where it belongs.
    """
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic" and request.method in _LOOKING:
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            raise TokenError("the header Authorization cannot be read") from None
    raise TokenError("a token is needed: send the header 'Authorization: Bearer TOKEN'")
