"""What routes ask for by the type of a parameter."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Request

from nni_hyperfd.platform import Caller, EmbeddedPlatform, PlatformClient, TenantPlatform
from nni_hyperfd.platform.protocol import HOLDER_HEADER
from nni_hyperfd.server.auth import caller, operator


async def _served(request: Request) -> EmbeddedPlatform:
    platform = request.app.state.platform
    assert isinstance(platform, EmbeddedPlatform)
    return platform


Served = Annotated[EmbeddedPlatform, Depends(_served)]
"""The platform of all tenants."""

_Holder = Header(alias=HOLDER_HEADER, pattern="^[A-Za-z0-9_-]{8,64}$", description="an id of the advisor's process")


async def _caller(request: Request) -> Caller:
    return caller(request)


Asking = Annotated[Caller, Depends(_caller)]
"""Who asks."""


async def _operator(request: Request) -> Caller:
    return operator(request)


Operator = Annotated[Caller, Depends(_operator)]
"""Who asks; anybody else than an operator is refused."""


async def _own(platform: Served, asking: Asking, holder: Annotated[str | None, _Holder] = None) -> PlatformClient:
    return TenantPlatform(platform, asking, holder)


Own = Annotated[PlatformClient, Depends(_own)]
"""The platform as the tenant of the caller sees it."""
