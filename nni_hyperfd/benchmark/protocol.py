"""The online protocol: data sets arrive one after another, and each may be tried a few times only."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from nni_hyperfd.benchmark import metrics
from nni_hyperfd.benchmark.tables import Table
from nni_hyperfd.recommenders.base import Recommender
from nni_hyperfd.space.encoded import EncodedConfigurations


@dataclass(frozen=True)
class Protocol:
    """How a run goes. The first tasks, `given` of them, are revealed whole and not scored.

    max_tasks: how many of the table's tasks take part, in random order; the server's own never do. candidates: drawn
    afresh for every task from what was measured on it. budget: picks per task. concurrency: how many of them run side
    by side. reveal: how many others' results become known after a task beside the own picks, drawn at random; None for
    all. meta_features: whether recommenders are told anything of the data sets; what that is worth is the difference.
    """

    max_tasks: int = 16
    candidates: int = 200
    budget: int = 4
    concurrency: int = 1
    reveal: int | None = None
    meta_features: bool = True
    given: int = 1

    def __post_init__(self) -> None:
        scored = self.max_tasks - self.given
        least = (scored - 1, self.candidates - 2, self.budget - 1, self.concurrency - 1, self.reveal or 0, self.given)
        if min(least) < 0:
            raise ValueError(f"The protocol needs 1 scored task, 2 candidates, 1 pick, 1 at once at least: {self}.")


@dataclass(frozen=True, eq=False)
class Turn:
    """One data set's turn: its place in the table, its candidates (indices into the table) and what they bring."""

    task: int
    indices: np.ndarray
    candidates: EncodedConfigurations
    performance: np.ndarray
    others: np.ndarray
    """All of the turn's candidates in random order: the first ones that were not picked are revealed."""


@dataclass(frozen=True)
class Outcome:
    """How a recommender did on one task. rank_percent: after each pick; the others: after the last."""

    position: int
    task: str
    picks: list[int]
    rank_percent: list[float]
    gain: float
    ndcg: float
    regret: float


def turns(table: Table, protocol: Protocol, seed: int) -> list[Turn]:
    """The run that follows from `seed`: the same for every recommender. Tasks without a measurement take no part."""
    rng = np.random.default_rng([seed, 0])
    measured = [np.flatnonzero(np.isfinite(row)) for row in table.performance]
    clients = [task for task in rng.permutation(len(table.tasks)) if len(measured[task]) and task not in table.server]
    order = clients[: protocol.max_tasks]
    result = []
    for task in order:
        indices = rng.permutation(measured[task])[: protocol.candidates]
        result.append(
            Turn(
                task=int(task),
                indices=indices,
                candidates=table.configurations[indices],
                performance=table.performance[task, indices],
                others=rng.permutation(len(indices)),
            )
        )
    return result


def run(table: Table, protocol: Protocol, make: Callable[[int], Recommender], seed: int) -> Iterator[Outcome]:
    """Lead a new recommender, `make(seed)`, through the run of this seed; one outcome per scored task."""
    recommender = make(seed)
    ties = np.random.default_rng([seed, 1])
    for position, turn in enumerate(turns(table, protocol, seed)):
        recommender.start_task(table.task(turn.task, protocol.budget, protocol.meta_features), turn.candidates)
        if position < protocol.given:
            recommender.end_task(dict(enumerate(turn.performance.tolist())))
            continue
        picks = pick_all(recommender, turn.performance, protocol.budget, protocol.concurrency)
        hidden = [int(i) for i in turn.others if i not in picks][: protocol.reveal]
        recommender.end_task({i: float(turn.performance[i]) for i in picks + hidden})
        yield Outcome(
            position=position,
            task=table.tasks[turn.task],
            picks=picks,
            rank_percent=metrics.rank_percent(turn.performance, picks, ties).tolist(),
            gain=metrics.gain(turn.performance, picks),
            ndcg=metrics.ndcg(turn.performance, picks),
            regret=metrics.normalised_regret(turn.performance, picks),
        )


def pick_all(recommender: Recommender, performance: np.ndarray, budget: int, concurrency: int = 1) -> list[int]:
    """Ask and tell until the budget or the candidates are spent; the picks in the order they were asked for.

    `concurrency` trials run side by side as in NNI: when the oldest one ends, its result is told and another is asked
    for, while the rest are still running.
    """
    budget = min(budget, len(performance))
    picks: list[int] = []
    running: deque[int] = deque()
    while len(picks) < budget or running:
        if free := min(concurrency - len(running), budget - len(picks)):
            asked = recommender.ask(free)
            picks += asked
            running += asked
        ended = running.popleft()
        recommender.tell(ended, float(performance[ended]))
    return picks
