"""What `hyperfd reproduce` has to do: runs of all arms on a table, and the warm-ups that they start from."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from nni_hyperfd.benchmark import tables
from nni_hyperfd.benchmark.protocol import Protocol, course
from nni_hyperfd.benchmark.regime import Regime
from nni_hyperfd.benchmark.reproduce.arms import ARMS, OVER_BUDGETS, OVER_ORDERS, Variant, unavailable
from nni_hyperfd.benchmark.tables import Table, TableError
from nni_hyperfd.recommenders import MeasuredDataset

BUDGET = 4
BUDGETS = (2, 4, 6, 8, 10)
WARM_UPS = 4
"""Number of seeds of the warm-up; run s starts from that of s modulo this. The server warms up once, whatever the order
of the tasks."""


class Setting(NamedTuple):
    """A table, and how runs on it go.

    Attributes:
        folder: of the table.
        protocol: how a run goes on it (`Protocol.on`), but for the budget.
        server: names of the server's own tasks; None for those that the table names.
    """

    folder: Path
    protocol: Protocol
    server: tuple[str, ...] | None = None

    @property
    def table(self) -> Table:
        """The table, read once per process."""
        return table_of(self.folder, self.server)


class ArmRun(NamedTuple):
    """One arm's run on a table with one seed.

    Attributes:
        setting: the table, and how the run goes.
        arm: name of the arm.
        budget: picks per task.
        seed: of the run.
    """

    setting: Setting
    arm: str
    budget: int
    seed: int

    @property
    def protocol(self) -> Protocol:
        """How the run goes."""
        return replace(self.setting.protocol, budget=self.budget)

    @property
    def key(self) -> tuple[str, str, int, Protocol]:
        """What tells runs of a folder apart (`results.RecommenderRun.key`)."""
        return self.setting.folder.name, self.arm, self.seed, self.protocol


class ArmWarmUp(NamedTuple):
    """A warm-up that runs start from.

    Attributes:
        setting: the table, and how the runs go.
        arm: name of the first arm that starts from it.
        seed: of the warm-up, and of what is known of the server's own data sets.
        file: where its result is kept.
    """

    setting: Setting
    arm: str
    seed: int
    file: Path

    @property
    def own(self) -> list[MeasuredDataset]:
        """The server's own data sets."""
        return course(self.setting.table, self.setting.protocol, self.seed).offline


@cache
def table_of(folder: Path, server: tuple[str, ...] | None = None) -> Table:
    """The table in a folder, read once per process; server: names of the server's own tasks, if not the table's."""
    table = tables.load(folder)
    return table if server is None else table.with_server(server)


def settings(
    folders: Iterable[Path], regime: Regime, offline: int | None = None, server: Sequence[str] | None = None
) -> list[Setting]:
    """The tables in these folders, and how runs on them go.

    Args:
        folders: of the tables.
        regime: what is known of other data sets.
        offline: number of offline data sets; by default all of the server's own.
        server: names of the server's own tasks; by default those that the tables name.

    Raises:
        TableError: a table cannot be read, does not say which data sets are the server's own, or has fewer than two
            others.
        ProtocolError: a table does not have so many data sets of the server's own.
    """
    names = None if server is None else tuple(server)
    result = []
    for folder in folders:
        table = table_of(folder, names)
        if not table.server:
            raise TableError(
                f"{folder} names no data sets of the server's own; name them with --server, here or for hyperfd table."
            )
        if len(table.tasks) - len(table.server) < 2:
            raise TableError(f"{folder} has fewer than two data sets beside the server's own; measure more.")
        result.append(Setting(folder, Protocol(regime, offline, budget=BUDGET).on(table), names))
    return result


def planned(setting: Setting, seeds: int, orders: int) -> list[ArmRun]:
    """All runs on a table that the exhibits need, in the order in which they are done.

    Args:
        setting: the table, and how the runs go.
        seeds: number of seeds of each arm.
        orders: number of seeds of the arms in Figure 4.
    """
    able = [name for name, arm in ARMS.items() if not unavailable(arm, setting.table, setting.protocol)]
    compared = [(name, BUDGET) for name in able]
    compared += itertools.product(OVER_BUDGETS, [budget for budget in BUDGETS if budget != BUDGET])
    ordered = [(name, BUDGET) for name in OVER_ORDERS]
    # Seed by seed, so that an interrupted command has all arms of the first seeds.
    wanted = [(seed, what) for seed in range(seeds) for what in compared]
    wanted += [(seed, what) for seed in range(seeds, orders) for what in ordered]
    return [ArmRun(setting, arm, budget, seed) for seed, (arm, budget) in wanted]


def warm_up_of(run: ArmRun, out: Path) -> ArmWarmUp | None:
    """The warm-up that a run starts from; None for an arm without one, and without offline data sets.

    Args:
        run: one of the runs.
        out: folder of all results.
    """
    arm = ARMS[run.arm]
    if not isinstance(arm, Variant) or not run.protocol.offline:
        return None
    first = next(name for name, other in ARMS.items() if isinstance(other, Variant) and other.warms_up_like(arm))
    seed = run.seed % WARM_UPS
    name = "".join(letter if letter.isalnum() else "-" for letter in first)
    file = out / "warm-ups" / f"{run.setting.folder.name} {name} {seed}.safetensors"
    return ArmWarmUp(run.setting, first, seed, file)
