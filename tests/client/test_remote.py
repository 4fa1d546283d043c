"""A client and a server, over loopback."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager

import pytest

pytest.importorskip("fastapi", reason="the extra `server` is not installed")
import uvicorn

from nni_hyperfd.client import PatientPlatform, RemotePlatform
from nni_hyperfd.client.outbox import Outbox
from nni_hyperfd.platform import EmbeddedPlatform, StateError
from nni_hyperfd.server.app import application
from support.platform_contract import Contract


@contextmanager
def served(platform):
    """The address of a server of the platform."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(application(platform), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class Served(Contract):
    @pytest.fixture
    def client(self, state):
        platform = EmbeddedPlatform(state)
        with served(platform) as address:
            client = RemotePlatform(address, platform.tenants.add("a"))
            yield client
            client.close()
        platform.close()


class TestServedFromAFile(Served):
    @pytest.fixture
    def state(self, tmp_path):
        return tmp_path / "state.sqlite"


class TestServedFromPostgresql(Served):
    @pytest.fixture
    def state(self, cluster):
        return cluster.new_database()


class TestServedPatiently(Contract):
    """The client of an experiment, whose calls go through its outbox."""

    @pytest.fixture
    def client(self, tmp_path, monkeypatch):
        platform = EmbeddedPlatform(tmp_path / "state.sqlite")
        monkeypatch.setenv("HYPERFD_TOKEN", platform.tenants.add("a"))
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        with served(platform) as address:
            client = PatientPlatform(address, continues=True)
            yield client
            assert not Outbox.of("e") and not Outbox.of("next"), "everything was acknowledged"
            client.close()
        platform.close()


def test_a_server_that_is_not_there_is_said():
    with pytest.raises(StateError, match="platform http://127.0.0.1:1: it cannot be reached"):
        RemotePlatform("http://127.0.0.1:1", retries=0).task(1)
