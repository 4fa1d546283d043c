"""The server's own data sets (D_off) in a run on a table, which every recommender knows before the first task."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from nni_hyperfd.benchmark.protocol import Protocol, run, turns
from nni_hyperfd.benchmark.report import RecommenderRun
from nni_hyperfd.benchmark.tables import Table
from nni_hyperfd.recommenders.base import MeasuredDataset, Recommender

PAIRS = 3000
"""Maximum number of (configuration, data set) pairs of the server, as in the paper, shared equally by its data sets."""


def run_of(table: Table, tasks: int, budget: int = 4) -> Protocol:
    """The protocol of a run beside the server's own data sets.

    Where a table names such data sets, no other task has to be given away. Where it names none, a third of its tasks,
    at least two, are kept for the server.

    Args:
        table: where the tasks come from.
        tasks: maximum number of tasks of the run.
        budget: picks per task.
    """
    own = len(table.server) or max(2, len(table.tasks) // 3)
    given = 0 if table.server else 1
    return Protocol(max_tasks=min(tasks, len(table.tasks) - own), budget=budget, given=given)


def own_tasks(table: Table, protocol: Protocol, seed: int) -> list[int]:
    """Indices of the server's own tasks: those that the table names, or else those that take no part in the run."""
    used = {turn.task for turn in turns(table, protocol, seed)}
    own = table.server or [task for task in range(len(table.tasks)) if task not in used]
    return [task for task in own if np.isfinite(table.performance[task]).any()]


def offline(table: Table, protocol: Protocol, seed: int) -> list[MeasuredDataset]:
    """The server's own tasks, each with results drawn at random: at most `PAIRS` in all, and `candidates` per task."""
    rng = np.random.default_rng([seed, 2])
    own, result = own_tasks(table, protocol, seed), []
    for task in own:
        measured = np.flatnonzero(np.isfinite(table.performance[task]))
        drawn = rng.permutation(measured)[: min(PAIRS // len(own), protocol.candidates)]
        described = table.task(task, protocol.budget, protocol.meta_features)
        result.append(MeasuredDataset(described, table.configurations[drawn], table.performance[task, drawn]))
    return result


def taught(recommender: Recommender, own: Sequence[MeasuredDataset]) -> Recommender:
    """Tell the recommender of the server's own data sets, and return it."""
    recommender.know(own)
    return recommender


def informed(recommender: Recommender, table: Table, protocol: Protocol, seed: int) -> Recommender:
    """Teach the recommender the server's own data sets, where the table names such, and return it."""
    return taught(recommender, offline(table, protocol, seed) if table.server else [])


def timed_run(
    table: Table, protocol: Protocol, name: str, make: Callable[[int], Recommender], seed: int
) -> RecommenderRun:
    """Run a new recommender, which knows the server's own data sets, on a table.

    Args:
        table: where the tasks come from.
        protocol: how the run goes.
        name: the recommender's name in the result.
        make: makes the recommender, given the seed.
        seed: of the recommender and of the run.
    """
    begin = time.perf_counter()
    outcomes = list(run(table, protocol, lambda own: informed(make(own), table, protocol, own), seed))
    seconds = time.perf_counter() - begin
    return RecommenderRun.of(table.name, name, seed, protocol, outcomes, seconds, table.missing)
