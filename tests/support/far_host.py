"""Another machine for tests: a network namespace with a file system view and an ssh server of its own."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

_NET = 0x40000000  # CLONE_NEWNET
_CONFIG = """\
Port 22
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
Subsystem sftp internal-sftp
SetEnv {environment}
"""


@dataclass(frozen=True)
class Machine:
    """A machine that is reached over a network only.

    Attributes:
        address: of its ssh server, for root.
        from_here: this machine's address, as it sees it.
        key: file of the private key.
        home: its home folder, which tests may look into.
        namespace: its name for `ip netns exec`.
    """

    address: str
    from_here: str
    key: Path
    home: Path
    namespace: str

    def run(self, *command: str) -> str:
        """What a command prints that is run there, by ssh."""
        options = ["-i", str(self.key), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-q"]
        done = subprocess.run(
            ["ssh", *options, f"root@{self.address}", *command], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def missing() -> str | None:
    """Why there can be no such machine; None where there can."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    for program in ("ip", "sshd", "ssh", "ssh-keygen", "unshare"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            return f"{program} is not installed"
    done = subprocess.run(["ip", "netns", "add", name := f"hfd{uuid4().hex[:6]}"], capture_output=True, text=True)
    if done.returncode:
        return f"no network namespaces: {done.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


@contextmanager
def network(number: int) -> Iterator[tuple[str, str, str]]:
    """A network namespace beside this machine's: its name, its address, and this machine's address on the wire."""
    name = f"hfd{uuid4().hex[:6]}"
    here, there = f"10.83.{number}.1", f"10.83.{number}.2"
    outside, inside = f"{name}o", f"{name}i"
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
        _run("ip", "addr", "add", f"{here}/30", "dev", outside)
        _run("ip", "link", "set", outside, "up")
        for command in (["addr", "add", f"{there}/30", "dev", inside], ["link", "set", inside, "up"]):
            _run("ip", "-n", name, *command)
        _run("ip", "-n", name, "link", "set", "lo", "up")
        _run("ip", "-n", name, "route", "add", "default", "via", here)
        yield name, there, here
    finally:
        _run("ip", "netns", "del", name)  # the pair of interfaces goes with it


@contextmanager
def wired(*names: str) -> Iterator[None]:
    """New network namespaces, of which each but the first has a wire to the first.

    The first is 10.84.N.1 on the wire to the N-th other one, counted from 1, which is 10.84.N.2.
    """
    first, *others = names
    made: list[str] = []
    try:
        for name in names:
            _run("ip", "netns", "add", name)
            made.append(name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        for number, name in enumerate(others, 1):
            wire = f"w{number}"
            _run("ip", "-n", first, "link", "add", wire, "type", "veth", "peer", "name", wire, "netns", name)
            for place, end in ((first, 1), (name, 2)):
                _run("ip", "-n", place, "addr", "add", f"10.84.{number}.{end}/30", "dev", wire)
                _run("ip", "-n", place, "link", "set", wire, "up")
        yield
    finally:
        for name in made:
            _run("ip", "netns", "del", name)


@contextmanager
def within(namespace: str) -> Iterator[None]:
    """Let this thread, and the threads and processes that it starts, be in a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/proc/self/task/{threading.get_native_id()}/ns/net") as here, open(f"/run/netns/{namespace}") as there:
        _check(libc.setns(there.fileno(), _NET))
        try:
            yield
        finally:
            _check(libc.setns(here.fileno(), _NET))


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextmanager
def machine(folder: Path, environment: Mapping[str, str], hidden: Path) -> Iterator[Machine]:
    """A machine that is on.

    Args:
        folder: for its home and its keys.
        environment: of whoever logs in.
        hidden: a folder of this machine that the other one has not.
    """
    home = folder / "home"
    home.mkdir(parents=True)
    for name in ("host_key", "key"):
        _run("ssh-keygen", "-q", "-t", "ecdsa", "-m", "PEM", "-N", "", "-f", str(folder / name))
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd asks for it
    with network(1) as (namespace, address, here):
        variables = " ".join(f'"{name}={value}"' for name, value in {"HOME": str(home), **environment}.items())
        config = folder / "sshd_config"
        config.write_text(_CONFIG.format(address=address, folder=folder, environment=variables))
        sshd = shutil.which("sshd", path="/usr/sbin:/sbin:/usr/bin")
        inside = f"mount -t tmpfs none {hidden} && exec {sshd} -D -e -f {config}"
        with (folder / "sshd.log").open("wb") as log:
            server = subprocess.Popen(
                ["ip", "netns", "exec", namespace, "unshare", "--mount", "--pid", "--fork", "--mount-proc",
                 "--kill-child", "sh", "-c", inside],
                stdout=log, stderr=log,
            )  # fmt: skip
        found = Machine(address, here, folder / "key", home, namespace)
        try:
            _wait(found, server, folder / "sshd.log")
            yield found
        finally:
            server.kill()  # and with it every process of the machine, the first of its own count
            server.wait()


def _wait(found: Machine, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            found.run("true")
            return
        except AssertionError as error:
            assert server.poll() is None and time.monotonic() < deadline, f"{error}\n{log.read_text()}"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def python_folder() -> str:
    """Where NNI is to look for Python there: this one, which both machines have."""
    return str(Path(sys.executable).parent)
