"""The processes of a platform for many: they are started, killed at any moment, and started again."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod

import requests

from nni_hyperfd.benchmark.load.cluster import Cluster

_PATIENCE = 120.0
"""Maximum number of seconds until a process is ready."""


class Service(ABC):
    """Something that can be killed and started again."""

    @abstractmethod
    def start(self) -> None:
        """Start it, and wait until it is ready."""

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL it."""


class Program(Service):
    """A command of `hyperfd`.

    Args:
        arguments: of the command line.
        address: of the server that it is, whose health is asked for; None for a program that nobody asks.
    """

    def __init__(self, arguments: list[str], address: str | None = None) -> None:
        self._command = hyperfd(*arguments)
        self._address = address
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + _PATIENCE
        while self._address is not None and not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"hyperfd {' '.join(self._command[3:])} does not start; run it by hand to see why")

    def kill(self) -> None:
        """SIGKILL it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self._address}/health/live", timeout=1).ok
        except requests.RequestException:
            time.sleep(0.05)  # between two questions to a process that is not there yet
            return False


class DatabaseServer(Service):
    """A PostgreSQL server.

    Args:
        cluster: the running server.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        self._cluster.start_again()

    def kill(self) -> None:
        """SIGKILL it."""
        self._cluster.kill()


def hyperfd(*arguments: str) -> list[str]:
    """The command line of a command of `hyperfd`, with this interpreter."""
    return [sys.executable, "-c", "from nni_hyperfd.cli import main; main()", *arguments]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
