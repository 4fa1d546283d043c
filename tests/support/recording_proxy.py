"""Runs a trial and keeps every byte that it sends: ``python recording_proxy.py LOGFILE -- command ...``.

As prefix of a `trialCommand` it stands between the trial and NNI's manager. LOGFILE gets the bytes from the trial to
the manager, connection after connection; LOGFILE.connects the addresses to which the trial's Python processes opened
connections, one JSON line each, so that a test sees whether anything went past the proxy.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from urllib.parse import urlsplit

_CHANNEL = "NNI_TRIAL_COMMAND_CHANNEL"
_CONNECTS = "HYPERFD_TEST_CONNECTS"
_WATCH = f"""
import json, os, sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        with open(os.environ[{_CONNECTS!r}], "a") as file:
            file.write(json.dumps(str(arguments[-1])) + "\\n")
sys.addaudithook(watch)
"""


class RecordingProxy:
    """Forwards TCP connections to `target`, and appends what comes from the client to `log`."""

    def __init__(self, target: tuple[str, int], log: Path) -> None:
        self._target, self._log, self._lock = target, log, threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self._server.accept()
            server = socket.create_connection(self._target)
            threading.Thread(target=self._forward, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._forward, args=(server, client, False), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, keep: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if keep:
                    with self._lock, self._log.open("ab") as file:
                        file.write(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other direction has closed the connection


def main() -> int:
    log, separator, *command = sys.argv[1:]
    assert separator == "--" and command, __doc__
    channel = urlsplit(os.environ[_CHANNEL])
    proxy = RecordingProxy((channel.hostname, channel.port), Path(log))
    with tempfile.TemporaryDirectory() as folder:
        # Python imports sitecustomize by itself at its start.
        (Path(folder) / "sitecustomize.py").write_text(_WATCH)
        environment = os.environ | {
            _CHANNEL: channel._replace(netloc=f"127.0.0.1:{proxy.port}").geturl(),
            _CONNECTS: f"{log}.connects",
            "PYTHONPATH": os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")])),
        }
        Path(f"{log}.proxy").write_text(json.dumps(["127.0.0.1", proxy.port]))
        return subprocess.run(command, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
