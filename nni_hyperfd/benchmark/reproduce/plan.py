"""What `hyperfd reproduce` has to do: runs of all arms on a table, and the warm-ups that they start from."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from typing import NamedTuple

from nni_hyperfd.benchmark import tables
from nni_hyperfd.benchmark.reproduce.arms import ARMS, OVER_BUDGETS, OVER_ORDERS, Variant, unavailable
from nni_hyperfd.benchmark.tables import TableError

BUDGET = 4
BUDGETS = (2, 4, 6, 8, 10)
WARM_UPS = 4
"""Number of seeds of the warm-up; run s starts from that of s modulo this. The server warms up once, whatever the order
of the tasks."""
MAX_TASKS = 16
"""Maximum number of tasks of a run, as in `hyperfd benchmark`."""


class ArmRun(NamedTuple):
    """One arm's run on a table with one seed.

    Attributes:
        table: folder of the table.
        arm: name of the arm.
        budget: picks per task.
        seed: of the run.
    """

    table: Path
    arm: str
    budget: int
    seed: int

    @property
    def key(self) -> tuple[str, str, int, int]:
        """Table's name, arm, budget and seed, as in the rows of results."""
        return (self.table.name, self.arm, self.budget, self.seed)


class ArmWarmUp(NamedTuple):
    """A warm-up that runs start from.

    Attributes:
        table: folder of the table.
        arm: name of the first arm that starts from it.
        seed: of the warm-up.
        file: where its result is kept.
    """

    table: Path
    arm: str
    seed: int
    file: Path


@cache
def table_of(folder: Path) -> tables.Table:
    """The table in a folder, read once per process."""
    return tables.load(folder)


def planned(folder: Path, seeds: int, orders: int) -> list[ArmRun]:
    """All runs on a table that the exhibits need, in the order in which they are done.

    Args:
        folder: of the table.
        seeds: number of seeds of each arm.
        orders: number of seeds of the arms in Figure 4.

    Raises:
        TableError: the table cannot be read, does not say which data sets are the server's own, or has fewer than two
            others.
    """
    table = table_of(folder)
    if not table.server:
        raise TableError(f"{folder} names no data sets of the server's own; make it with hyperfd table --server.")
    if len(table.tasks) - len(table.server) < 2:
        raise TableError(f"{folder} has fewer than two data sets beside the server's own; measure more.")
    able = [name for name, arm in ARMS.items() if not unavailable(arm, table)]
    compared = [(name, BUDGET) for name in able]
    compared += itertools.product(OVER_BUDGETS, [budget for budget in BUDGETS if budget != BUDGET])
    ordered = [(name, BUDGET) for name in OVER_ORDERS]
    # Seed by seed, so that an interrupted command has all arms of the first seeds.
    wanted = [(seed, what) for seed in range(seeds) for what in compared]
    wanted += [(seed, what) for seed in range(seeds, orders) for what in ordered]
    return [ArmRun(folder, arm, budget, seed) for seed, (arm, budget) in wanted]


def warm_up_of(run: ArmRun, out: Path) -> ArmWarmUp | None:
    """The warm-up that a run starts from; None for an arm without one.

    Args:
        run: one of the runs.
        out: folder of all results.
    """
    arm = ARMS[run.arm]
    if not isinstance(arm, Variant):
        return None
    first = next(name for name, other in ARMS.items() if isinstance(other, Variant) and other.warms_up_like(arm))
    seed = run.seed % WARM_UPS
    name = "".join(letter if letter.isalnum() else "-" for letter in first)
    return ArmWarmUp(run.table, first, seed, out / "warm-ups" / f"{run.table.name} {name} {seed}.safetensors")
