"""`hyperfd serve` as a process."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time

import pytest

pytest.importorskip("fastapi", reason="the extra `server` is not installed")

from nni_hyperfd.client import RemotePlatform
from nni_hyperfd.platform import RefusedError, StateError, Tenants
from nni_hyperfd.server.running import Listening
from nni_hyperfd.state.store import Store
from support.platform_contract import opened


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "hyperfd.example.org"])
def test_other_machines_are_not_answered_without_tls_unless_someone_says_so(host):
    with pytest.raises(RefusedError, match="without TLS; name --tls-certificate"):
        Listening(host)
    assert Listening(host, insecure=True).host == host
    assert all(Listening(own) for own in ("127.0.0.1", "::1", "localhost"))


MAIN = "from nni_hyperfd.cli import main; main()"


def start(state, port):
    options = ["--database", str(state), "--port", str(port), "--no-warm-start"]
    command = [sys.executable, "-c", MAIN, "serve", *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def answered(client, process, seconds=60):
    """The task that a server opens as soon as it answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return opened(client)
        except StateError:
            assert process.poll() is None and time.monotonic() < deadline


@pytest.mark.slow
def test_a_killed_server_goes_on_where_it_was_and_the_client_does_not_notice(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = Store(tmp_path / "state.sqlite")
    client = RemotePlatform(f"http://127.0.0.1:{port}", Tenants(store).add("a"), retries=10)
    store.close()
    process = start(tmp_path / "state.sqlite", port)
    try:
        task_id = answered(client, process)
        trial = client.next_trial(task_id)
        client.start(trial.id, 0)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process = start(tmp_path / "state.sqlite", port)
        client.observe(task_id, 0, 0.5)  # asked while nobody listens
        assert [trial.performance for trial in client.task(task_id).trials] == [0.5]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        client.close()
