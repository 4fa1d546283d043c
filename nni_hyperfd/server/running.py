"""Listening: where, with which certificate, and when not."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from nni_hyperfd.platform import RefusedError
from nni_hyperfd.server.app import application
from nni_hyperfd.server.chores import Pace
from nni_hyperfd.server.limits import Limits
from nni_hyperfd.server.opening import served_platform

_SHUTDOWN_SECONDS = 30  # requests in progress may end within them


@dataclass(frozen=True)
class Listening:
    """Where a server listens.

    Attributes:
        host: name or address.
        port: of TCP; 0 for any that is free.
        certificate: PEM file for TLS, or None.
        key: PEM file of its private key, or None where the certificate's file has it.
        insecure: whether others than this machine may be answered without TLS, as behind a proxy that adds it.

    Raises:
        RefusedError: others than this machine would be answered without TLS, and nobody has said that they may.
    """

    host: str = "127.0.0.1"
    port: int = 8440
    certificate: Path | None = None
    key: Path | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        if self.key is not None and self.certificate is None:
            raise RefusedError("--tls-key: it belongs to a certificate; name that with --tls-certificate")
        if self.certificate is None and not self.insecure and not _is_loopback(self.host):
            raise RefusedError(
                f"--host {self.host}: others than this machine would be answered without TLS; name --tls-certificate "
                "and --tls-key, or say --insecure where a proxy in front of it adds TLS"
            )

    @property
    def address(self) -> str:
        """As a client names it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.certificate else ''}://{host}:{self.port}"


def serve(
    state: str, warm_start: Path | None, listening: Listening, limits: Limits, pace: Pace, say: Callable[[str], None]
) -> None:
    """Serve a platform until SIGTERM or SIGINT; requests in progress end first.

    Args:
        state: of the platform, a file or an address as `state.store.Store` takes them.
        warm_start: what a new state begins with.
        listening: where.
        limits: of the requests.
        pace: of the worker beside a state in a file.
        say: is given what an operator should know at the start.

    Raises:
        StateError: the state cannot be used.
    """
    with served_platform(state, warm_start, pace) as platform:
        name = platform.store.name
        say(f"Serving {name} at {listening.address}")
        if not platform.tenants.list():
            say(f"There is no tenant yet, and nobody is answered. Add one: hyperfd tenant add NAME --database '{name}'")
        uvicorn.run(
            application(platform, limits),
            host=listening.host,
            port=listening.port,
            ssl_certfile=listening.certificate,
            ssl_keyfile=listening.key,
            server_header=False,
            access_log=False,  # `logs` writes one without paths
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
