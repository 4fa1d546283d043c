"""Finding the processes that a test has started, whoever their parents are by now."""

from __future__ import annotations

from uuid import uuid4

import psutil

_VARIABLE = "HYPERFD_TEST_PROCESSES"


class Marked:
    """Processes that inherit a mark.

    Attributes:
        environment: what the environment of the first process must contain.
    """

    def __init__(self) -> None:
        self._mark = uuid4().hex
        self.environment = {_VARIABLE: self._mark}

    def alive(self) -> list[psutil.Process]:
        """Every living process with this mark."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(_VARIABLE) == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def managers(self) -> list[psutil.Process]:
        """NNI's managers among them."""
        return [process for process in self.alive() if is_manager(process)]

    def kill_all(self) -> None:
        """SIGKILL for all, as when the machine goes down; managers first, so that they do not react."""
        for process in sorted(self.alive(), key=is_manager, reverse=True):
            kill(process)


def is_manager(process: psutil.Process) -> bool:
    return any(part.endswith("main.js") for part in command(process))


def is_dispatcher(process: psutil.Process) -> bool:
    return command(process)[1:3] == ["-m", "nni"]


def command(process: psutil.Process) -> list[str]:
    """The words of its command line; none when it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def kill(process: psutil.Process) -> None:
    try:
        process.kill()
        process.wait(10)
    except psutil.NoSuchProcess:
        pass
