"""How long the state's write lock is held while two experiments close their tasks at the same time.

    python -m nni_hyperfd.benchmark.write_lock [--past 3000] [--rounds 5] [--preset default]

The state has many past tasks, made as in `nni_hyperfd.benchmark.state`. Two processes lead a task each through the
platform, wait for each other, and close their tasks, round after round. Printed are the median and the longest time
from the end of BEGIN IMMEDIATE to the end of COMMIT or ROLLBACK, for each process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, Pool, event

from nni_hyperfd.benchmark import state
from nni_hyperfd.platform import Platform
from nni_hyperfd.task import Preset, TaskSettings

EXPERIMENTS = 2
STEPS = ("until closing", "closing")
_PATIENCE = 1800.0
"""Maximum number of seconds that a process waits for the other."""

Held = tuple[str, float]
"""One of `STEPS`, and for how many seconds one transaction of it held the lock."""


class LockWatch:
    """Measures the write transactions of all SQLite engines in this process while it is in use (`watched`).

    Attributes:
        step: what the process is doing; one of `STEPS`.
        held: every write transaction that has ended.
    """

    def __init__(self) -> None:
        self.step = STEPS[0]
        self.held: list[Held] = []
        self._since: dict[int, float] = {}

    def executed(self, _connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        """Note the beginning of a transaction: SQLite has given it the lock when BEGIN IMMEDIATE returns."""
        if statement == "BEGIN IMMEDIATE":
            self._since[id(cursor.connection)] = time.perf_counter()

    def returned(self, connection: Any, _record: Any) -> None:
        """Note its end: a session returns its connection to the pool right after COMMIT or ROLLBACK."""
        if (began := self._since.pop(id(connection), None)) is not None:
            self.held.append((self.step, time.perf_counter() - began))


@contextmanager
def watched() -> Iterator[LockWatch]:
    """Measure the write transactions within the block."""
    watch = LockWatch()
    event.listen(Engine, "after_cursor_execute", watch.executed)
    event.listen(Pool, "checkin", watch.returned)
    try:
        yield watch
    finally:
        event.remove(Engine, "after_cursor_execute", watch.executed)
        event.remove(Pool, "checkin", watch.returned)


def main(
    past: Annotated[int, typer.Option(min=state.LIVED, help="Past tasks of the state.")] = 3000,
    rounds: Annotated[int, typer.Option(min=1, help="How often both experiments close a task.")] = 5,
    preset: Annotated[str, typer.Option(help="Of both experiments.")] = "default",
) -> None:
    """Measure how long the write lock is held while two experiments close their tasks at the same time."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "state.sqlite"
        platform = Platform(path)
        state.add_offline_sets(platform)
        state.grow(platform, past)
        platform.store.close()
        found = measure(path, rounds, preset)
    Console().print(_table(found, f"Write lock with {past:,} past tasks, preset {preset}"))


def measure(path: Path, rounds: int, preset: str = "default") -> list[list[Held]]:
    """Let several experiments close tasks on one state at the same time.

    Args:
        path: of the state.
        rounds: number of tasks of each experiment.
        preset: of all tasks.

    Returns:
        The write transactions of each process.
    """
    context = get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(EXPERIMENTS, context) as pool:
        barrier = manager.Barrier(EXPERIMENTS)
        waiting = [
            pool.submit(_experiment, path, f"closing {number}", rounds, preset, barrier)
            for number in range(EXPERIMENTS)
        ]
        return [one.result() for one in waiting]


def _experiment(path: Path, name: str, rounds: int, preset: str, barrier: threading.Barrier) -> list[Held]:
    """Lead a task after the other through the platform, and close each when the other process does."""
    torch.set_num_threads(1)
    platform, settings = Platform(path), TaskSettings(preset=Preset(preset))
    with watched() as watch:
        for number in range(rounds):
            watch.step = STEPS[0]
            ready = state.lead(platform, f"{name}, round {number}", settings)
            barrier.wait(_PATIENCE)
            watch.step = STEPS[1]
            platform.close_task(ready.task_id, ready.update)
    return watch.held


def _table(found: Sequence[Sequence[Held]], title: str) -> Table:
    """A row per process and step."""
    table = Table("process", "step", "transactions", "median (ms)", "longest (ms)", title=title)
    for number, held in enumerate(found, start=1):
        for step in STEPS:
            seconds = [one for known, one in held if known == step]
            times = f"{1000 * median(seconds):.1f}", f"{1000 * max(seconds):.1f}"
            table.add_row(str(number), step, str(len(seconds)), *times)
    return table


if __name__ == "__main__":
    typer.run(main)
