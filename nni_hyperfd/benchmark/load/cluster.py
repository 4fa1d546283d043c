"""A PostgreSQL cluster of one's own, in a temporary folder, without a port: for tests and for measuring."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from uuid import uuid4

_USER = "nobody"  # the server refuses to run as root
_PATIENCE = 60
_DEBIAN = "/usr/lib/postgresql/*/bin"


class Cluster:
    """A running database server."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self._data, self._socket, self._binaries = folder / "data", folder, binaries

    def create(self) -> None:
        """Make the cluster's files."""
        # C.UTF-8 and no fsync of the files of initdb itself: half of the time it takes.
        self._run("initdb", "--auth=trust", "--username=hyperfd", "--encoding=UTF8", "--no-sync", "-D", self._data)

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = f"-c listen_addresses='' -c unix_socket_directories={self._socket} -c shared_buffers=16MB"
        log = self._socket / "log"
        self._run("pg_ctl", "-w", "-t", "60", "-D", self._data, "-l", log, "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; `immediate` is a crash."""
        self._run("pg_ctl", "-w", "-D", self._data, "-m", mode, "stop")

    def kill(self) -> None:
        """SIGKILL the server; its connections' processes end when they notice."""
        pid = int((self._data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)

    def start_again(self) -> None:
        """Start a server that was killed, which is refused until the last of its processes has ended.

        Raises:
            AssertionError: it does not start within `_PATIENCE` seconds.
        """
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self.start()
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
            else:
                return

    def new_database(self) -> str:
        """The address of a new, empty database."""
        name = f"d{uuid4().hex}"
        self._run("createdb", "-h", self._socket, "-U", "hyperfd", name)
        return f"postgresql+psycopg://hyperfd@/{name}?host={self._socket}"

    def dump(self, url: str) -> bytes:
        """What `pg_dump` writes of a database, as SQL."""
        with tempfile.TemporaryDirectory() as folder:
            if os.geteuid() == 0:
                shutil.chown(folder, _USER)
            self._run("pg_dump", "-h", self._socket, "-U", "hyperfd", "-f", f"{folder}/sql", _name(url))
            return Path(folder, "sql").read_bytes()

    def restored(self, sql: bytes) -> str:
        """The address of a new database with what `dump` has written."""
        url = self.new_database()
        with tempfile.NamedTemporaryFile(prefix="hfpg") as file:
            file.write(sql)
            file.flush()
            os.chmod(file.name, 0o644)
            options = ["-v", "ON_ERROR_STOP=1", "-q", "-h", self._socket, "-U", "hyperfd"]
            self._run("psql", *options, "-f", file.name, _name(url))
        return url

    def _run(self, program: str, *arguments: object) -> None:
        as_user = ["runuser", "-u", _USER, "--"] if os.geteuid() == 0 else []
        command = [*as_user, str(self._binaries / program), *map(str, arguments)]
        # A server inherits what the starter writes to; with a pipe the call would wait for its end.
        with tempfile.TemporaryFile() as output:
            ended = subprocess.run(command, stdout=output, stderr=output, cwd="/")
            output.seek(0)
            assert ended.returncode == 0, output.read().decode()


def missing() -> str | None:
    """Why no cluster can be made here; None if one can."""
    if _binaries() is None:
        return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed; pip install 'nni-hyperfd[server]' brings it"
    return None


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A running server within the block; its files are removed afterwards."""
    binaries = _binaries()
    assert binaries is not None
    folder = Path(tempfile.mkdtemp(prefix="hfpg"))  # a socket's path must be short, pytest's folders are long
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, _USER)
        made = Cluster(folder, binaries)
        made.create()
        made.start()
        try:
            yield made
        finally:
            made.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _name(url: str) -> str:
    """The name of a database, out of its address."""
    return url.partition("@/")[2].partition("?")[0]


def _binaries() -> Path | None:
    found = shutil.which("initdb")
    folders = [str(Path(found).resolve().parent)] if found else sorted(glob(_DEBIAN))
    return Path(folders[-1]) if folders else None
