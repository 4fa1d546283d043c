"""The server's own data sets (D_off) in a run on a table: what everyone knows of them before the first task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nni_hyperfd.benchmark.protocol import Protocol, turns
from nni_hyperfd.benchmark.tables import Table
from nni_hyperfd.recommenders.base import Recommender
from nni_hyperfd.recommenders.paper import MeasuredDataset

PAIRS = 3000
"""(configuration, data set) pairs of the server's, as in the paper, with at most as many per data set as candidates."""


def run_of(table: Table, tasks: int, budget: int = 4) -> Protocol:
    """The protocol of a run of so many tasks at most beside the server's own: then no other has to be given away."""
    own = len(table.server) or max(2, len(table.tasks) // 3)
    given = 0 if table.server else 1
    return Protocol(max_tasks=min(tasks, len(table.tasks) - own), budget=budget, given=given)


def own_tasks(table: Table, protocol: Protocol, seed: int) -> list[int]:
    """Places of the server's own tasks: those that the table names, or else the ones that the run has no turn for."""
    used = {turn.task for turn in turns(table, protocol, seed)}
    own = table.server or [task for task in range(len(table.tasks)) if task not in used]
    return [task for task in own if np.isfinite(table.performance[task]).any()]


def offline(table: Table, protocol: Protocol, seed: int) -> list[MeasuredDataset]:
    """The server's own tasks, with results drawn at random."""
    rng = np.random.default_rng([seed, 2])
    own, result = own_tasks(table, protocol, seed), []
    for task in own:
        measured = np.flatnonzero(np.isfinite(table.performance[task]))
        drawn = rng.permutation(measured)[: min(PAIRS // len(own), protocol.candidates)]
        described = table.task(task, protocol.budget, protocol.meta_features)
        result.append(MeasuredDataset(described, table.configurations[drawn], table.performance[task, drawn]))
    return result


def taught(recommender: Recommender, own: Sequence[MeasuredDataset]) -> Recommender:
    """A recommender that had the server's own data sets as tasks."""
    for data_set in own:
        recommender.start_task(data_set.task, data_set.candidates)
        recommender.end_task(dict(enumerate(data_set.performance.tolist())))
    return recommender


def informed(recommender: Recommender, table: Table, protocol: Protocol, seed: int) -> Recommender:
    """A recommender that knows the server's own data sets, where the table names such."""
    return taught(recommender, offline(table, protocol, seed) if table.server else [])
