"""Servers for tests: `hyperfd serve` as a process that can be killed, and one that is a thread of the test."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from nni_hyperfd.platform import EmbeddedPlatform

_MAIN = "from nni_hyperfd.cli import main; main()"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Server:
    """`hyperfd serve`, which comes back on the same port after it was killed.

    Attributes:
        address: of the server.
        token: of its only tenant.

    Args:
        state: of the platform.
        options: more of them, for the command.
        log: file for what it prints.
    """

    def __init__(self, state: str | Path, *options: str, log: Path | None = None) -> None:
        self.port, self._log = free_port(), log
        platform = EmbeddedPlatform(state)
        self.token = platform.tenants.add("a")
        platform.close()
        self.address = f"http://127.0.0.1:{self.port}"
        serve = ["serve", "--database", str(state), "--port", str(self.port), "--no-warm-start", *options]
        self._command = [sys.executable, "-c", _MAIN, *serve]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        """Start it, and wait until it answers."""
        out = subprocess.DEVNULL if self._log is None else self._log.open("ab")
        self._process = subprocess.Popen(self._command, stdout=out, stderr=out)
        deadline = time.monotonic() + 120
        while not self.answers():
            assert self._process.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not answer"
        return self

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.address}/health/live", timeout=5).ok
        except requests.RequestException:
            return False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def server(state: Path, *options: str) -> Iterator[Server]:
    """A running server, which is killed at the end."""
    running = Server(state, *options).start()
    try:
        yield running
    finally:
        running.kill()


class Between:
    """Stands between clients and a server, and hands on requests and answers.

    Attributes:
        address: of the way through it.

    Args:
        port: of the server, on this machine.
        host: where to listen.
        tls: certificate to answer with, or None for plain HTTP.
    """

    def __init__(self, port: int, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self._server_port, self._tls = port, tls
        self._listening = socket.create_server((host, 0))
        self.port = self._listening.getsockname()[1]
        self.address = f"http{'s' if tls else ''}://{host}:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def hears(self, request: bytes) -> None:
        """Called with every request."""

    def loses(self) -> bool:
        """Whether the next answer does not arrive."""
        return False

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        """One connection: a request with its body, its answer, and so on."""
        try:
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            with client, socket.create_connection(("127.0.0.1", self._server_port)) as server:
                while request := _message(client):
                    self.hears(request)
                    server.sendall(request)
                    answer = _message(server)
                    if self.loses():
                        return
                    client.sendall(answer)
        except OSError:
            client.close()


class Forgetful(Between):
    """Loses every second answer: the server has heard the request.

    Attributes:
        lost: answers so far.
    """

    lost = _count = 0

    def loses(self) -> bool:
        self._count += 1
        self.lost += self._count % 2
        return bool(self._count % 2)


class Recording(Between):
    """Keeps every request, in `heard`."""

    def __init__(self, port: int, host: str, tls: ssl.SSLContext) -> None:
        self.heard: list[bytes] = []
        super().__init__(port, host, tls)

    def hears(self, request: bytes) -> None:
        self.heard.append(request)


def _message(source: socket.socket) -> bytes:
    """One request or answer of HTTP/1.1 with a Content-Length, or without a body; empty at the end."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := source.recv(1 << 16)):
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    while len(body) < int(lengths[0]) if lengths else False:
        body += source.recv(1 << 16)
    return head + b"\r\n\r\n" + body
