"""The online protocol: data sets arrive one after another, and each may be tried a few times only."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.benchmark import metrics
from nni_hyperfd.benchmark.tables import Table
from nni_hyperfd.recommenders import EncodedConfigurations, Recommender


@dataclass(frozen=True)
class Protocol:
    """How a run goes.

    Attributes:
        max_tasks: maximum number of the table's tasks that take part, in random order; the server's own never do.
        candidates: maximum number of candidates, drawn afresh for every task from what was measured on it.
        budget: picks per task.
        concurrency: number of trials that run side by side.
        reveal: number of results that become known after a task beside those of the picks, drawn at random; None for
            all.
        meta_features: whether recommenders are told anything of the data sets; what that is worth is the difference.
        given: number of first tasks that are revealed whole and not scored.

    Raises:
        ValueError: a number is too small.
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
            raise ValueError(
                "A protocol needs at least 1 scored task, 2 candidates, 1 pick per task and 1 trial at a time, and no"
                f" negative number, got {self}."
            )


@dataclass(frozen=True, eq=False)
class Turn:
    """The turn of one data set.

    Attributes:
        task: its index in the table.
        indices: (n,), the candidates' indices in the table.
        candidates: the n candidates.
        performance: (n,), their results.
        others: (n,), all of the turn's candidates in random order; the first ones that were not picked are revealed.
    """

    task: int
    indices: NDArray[np.int64]
    candidates: EncodedConfigurations
    performance: NDArray[np.float64]
    others: NDArray[np.int64]


@dataclass(frozen=True)
class Outcome:
    """How a recommender did on one task.

    Attributes:
        position: of the task in the run, from 0.
        task: its name.
        picks: indices of the picked candidates, in order.
        rank_percent: Rank% after each pick.
        gain: of all picks, as `metrics.gain` has it.
        ndcg: of all picks, as `metrics.ndcg` has it.
        regret: of all picks, as `metrics.normalised_regret` has it.
    """

    position: int
    task: str
    picks: list[int]
    rank_percent: list[float]
    gain: float
    ndcg: float
    regret: float


def turns(table: Table, protocol: Protocol, seed: int) -> list[Turn]:
    """The turns of the run that follows from `seed`, which are the same for every recommender.

    Tasks without a measurement take no part.
    """
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
    """Lead a new recommender, `make(seed)`, through the run of this seed.

    Yields:
        An outcome for each scored task.
    """
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


def pick_all(
    recommender: Recommender, performance: NDArray[np.float64], budget: int, concurrency: int = 1
) -> list[int]:
    """Ask and tell until the budget or the candidates are spent.

    Args:
        recommender: one that has started a task.
        performance: (n,), results of the task's candidates.
        budget: maximum number of picks.
        concurrency: number of trials that run side by side as in NNI: when the oldest one ends, its result is told and
            another pick is asked for while the rest are still running.

    Returns:
        The picks in the order in which they were asked for.
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
