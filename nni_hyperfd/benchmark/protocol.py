"""The online protocol: data sets arrive one after another, and each may be tried a few times only."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.benchmark import metrics
from nni_hyperfd.benchmark.descriptions import PAIRS, as_known
from nni_hyperfd.benchmark.regime import Regime
from nni_hyperfd.benchmark.tables import Table
from nni_hyperfd.recommenders import EncodedConfigurations, MeasuredDataset, Recommender, Task


class ProtocolError(ValueError):
    """A protocol contradicts itself or does not fit a table; the message says how."""


@dataclass(frozen=True)
class Protocol:
    """How a run goes.

    The same seed gives the same order of tasks, and the same candidates for each, whatever the other settings.

    Attributes:
        regime: what is known of other data sets.
        offline: number of offline data sets, which are the platform's own and known whole before the first task: so
            many of the table's server tasks, drawn at random, or where it names none, the first ones of the shuffled
            order. By default all server tasks, or one task of a table without any.
        max_tasks: maximum number of the table's tasks that take part, in random order; offline ones that come from this
            order count, the table's server tasks do not.
        candidates: maximum number of candidates, drawn afresh for every task from what was measured on it.
        budget: picks per task.
        concurrency: number of trials that run side by side.
        meta_features: whether recommenders are told anything of the data sets; what that is worth is the difference.
        noise: epsilon of the noise with which clients' meta-features are released (`benchmark.descriptions`); None for
            exact ones.

    Raises:
        ProtocolError: a number is too small, or a regime without offline data sets is to have some.
    """

    regime: Regime = Regime.REAL
    offline: int | None = None
    max_tasks: int = 16
    candidates: int = 200
    budget: int = 4
    concurrency: int = 1
    meta_features: bool = True
    noise: float | None = None

    def __post_init__(self) -> None:
        least = (self.max_tasks - 1, self.candidates - 2, self.budget - 1, self.concurrency - 1, self.offline or 0)
        if min(least) < 0:
            raise ProtocolError(
                "A protocol needs at least 1 task, 2 candidates, 1 pick per task and 1 trial at a time, and no negative"
                f" number of offline data sets, got {self!r}."
            )
        if self.regime is Regime.COLD and self.offline:
            raise ProtocolError(
                f"The cold regime has no offline data sets, so it cannot have {self.offline}; use the real regime."
            )
        if self.noise is not None and not 0 < self.noise < np.inf:
            raise ProtocolError(f"The noise's epsilon must be greater than 0 and finite, not {self.noise}.")
        if self.noise is not None and not self.meta_features:
            raise ProtocolError("There is no meta-feature to add noise to where meta-features are withheld.")

    def on(self, table: Table) -> Protocol:
        """The same protocol with the number of offline data sets that there are with this table.

        Raises:
            ProtocolError: the table does not have so many, no task is left to score, or there is nothing to add noise
                to.
        """
        named, clients = len(table.own), min(self.max_tasks, len(table.clients))
        offline = self.offline
        if offline is None:
            offline = 0 if self.regime is Regime.COLD else named if table.server else 1
        if table.server and offline > named:
            raise ProtocolError(
                f"Table {table.name} has results for {named} of the platform's own data sets, so there cannot be"
                f" {offline} offline ones; take fewer, or name more with --server."
            )
        if clients <= (0 if table.server else offline):
            raise ProtocolError(
                f"Table {table.name} has no task left to score: {clients} take part and {offline} data sets are to be"
                " offline; take fewer offline ones or more tasks."
            )
        if self.noise is not None and not table.images:
            raise ProtocolError(
                f"Table {table.name} has no image features, so no meta-features of the extractor to add noise to."
            )
        return replace(self, offline=offline)

    def __str__(self) -> str:
        """The regime and the number of offline data sets, which every result says, and what is not as usual."""
        offline = "default offline" if self.offline is None else f"{self.offline or 'no'} offline"
        said = [f"{self.regime.value} regime", f"{offline} data set{'s' * (self.offline != 1)}"]
        said += ["no meta-features"] * (not self.meta_features)
        said += [] if self.noise is None else [f"meta-features with noise of epsilon {self.noise:g}"]
        said += [f"{self.concurrency} trials side by side"] * (self.concurrency > 1)
        return ", ".join(said)


@dataclass(frozen=True, eq=False)
class Turn:
    """The turn of one data set.

    Attributes:
        name: of the task.
        task: what is known of it.
        indices: (n,), the candidates' indices in the table.
        candidates: the n candidates.
        performance: (n,), their results.
    """

    name: str
    task: Task
    indices: NDArray[np.int64]
    candidates: EncodedConfigurations
    performance: NDArray[np.float64]

    def measured(self, most: int) -> MeasuredDataset:
        """The data set with its results, of at most so many candidates."""
        places = np.arange(len(self.performance))[:most]
        return MeasuredDataset(self.task, self.candidates[places], self.performance[places])


@dataclass(frozen=True)
class Outcome:
    """How a recommender did on one task.

    Attributes:
        position: of the task among the scored ones, from 0.
        task: its name.
        picks: indices in the table of the picked configurations, in order.
        rank_percent: Rank% after each pick.
        gain: of all picks, as `metrics.gain` has it.
        ndcg: of all picks, as `metrics.ndcg` has it.
        regret: of all picks, as `metrics.normalised_regret` has it.
    """

    position: int
    task: str
    picks: tuple[int, ...]
    rank_percent: tuple[float, ...]
    gain: float
    ndcg: float
    regret: float


@dataclass(frozen=True, eq=False)
class Course:
    """What happens in a run, whoever recommends.

    Attributes:
        offline: the platform's own data sets with their results, in the order in which they are told.
        turns: those of the scored tasks.
    """

    offline: list[MeasuredDataset]
    turns: list[Turn]


def course(table: Table, protocol: Protocol, seed: int, server_seed: int | None = None) -> Course:
    """What happens in the run that follows from `seed`.

    Args:
        table: where the tasks come from.
        protocol: how the run goes.
        seed: of the order of tasks, their candidates and the noise.
        server_seed: of the choice among the table's server tasks, and of their results; `seed` by default.

    Raises:
        ProtocolError: the protocol does not fit the table.
    """
    count, rng, clients = protocol.on(table).offline or 0, np.random.default_rng([seed, 0]), table.clients
    order = [int(task) for task in rng.permutation(len(table.tasks)) if task in clients][: protocol.max_tasks]
    drawn = {}
    for task in order:
        drawn[task] = rng.permutation(table.measured(task))[: protocol.candidates]
        rng.permutation(len(drawn[task]))  # not used any more; without it, seeds would have other candidates
    if table.server:
        server_seed = seed if server_seed is None else server_seed
        chosen = np.random.default_rng([server_seed, 4]).permutation(table.own)[:count]
        own = [task for task in table.server if task in chosen]
        rng = np.random.default_rng([server_seed, 2])
        drawn |= {task: rng.permutation(table.measured(task))[: protocol.candidates] for task in table.own}
    else:
        own = order[:count]
    if protocol.meta_features:
        table = as_known(table, own, protocol.noise, seed)
    turns = {task: _turn(table, protocol, task, drawn[task]) for task in (*own, *order)}
    most = PAIRS // max(1, count)
    offline = [turns[task].measured(most) for task in own]
    return Course(offline, [turns[task] for task in order if task not in own])


def _turn(table: Table, protocol: Protocol, task: int, indices: NDArray[np.int64]) -> Turn:
    """The turn of a task with these candidates."""
    known = table.task(task, protocol.budget, protocol.meta_features)
    return Turn(table.tasks[task], known, indices, table.configurations[indices], table.performance[task, indices])


def run(table: Table, protocol: Protocol, make: Callable[[int], Recommender], seed: int) -> Iterator[Outcome]:
    """Lead a new recommender, `make(seed)`, through the run of this seed.

    Yields:
        An outcome for each scored task, once the recommender has learned from it.

    Raises:
        ProtocolError: the protocol does not fit the table.
    """
    known = course(table, protocol, seed)
    return lead(taught(make(seed), known.offline), known.turns, protocol, seed)


def taught(recommender: Recommender, offline: Sequence[MeasuredDataset]) -> Recommender:
    """Tell the recommender of the platform's own data sets, and return it.

    Data sets of which nothing but results is known are past tasks like any other.
    """
    if all(own.task.images is not None or own.task.meta_feature is not None for own in offline):
        recommender.know(offline)
    else:
        Recommender.know(recommender, offline)
    return recommender


def lead(recommender: Recommender, turns: Sequence[Turn], protocol: Protocol, seed: int) -> Iterator[Outcome]:
    """Lead a recommender through tasks; what it knew before stays.

    Args:
        recommender: a new one, or one that knows the platform's own data sets.
        turns: those of the tasks, in order.
        protocol: how the run goes.
        seed: of ties between equal results.

    Yields:
        An outcome for each task, once the recommender has learned from it.
    """
    ties = np.random.default_rng([seed, 1])
    for position, turn in enumerate(turns):
        recommender.start_task(turn.task, turn.candidates)
        picks = pick_all(recommender, turn.performance, protocol.budget, protocol.concurrency)
        known = range(len(turn.performance)) if protocol.regime is Regime.REVEALED else picks
        recommender.end_task({index: float(turn.performance[index]) for index in known})
        yield Outcome(
            position=position,
            task=turn.name,
            picks=tuple(turn.indices[picks].tolist()),
            rank_percent=tuple(metrics.rank_percent(turn.performance, picks, ties).tolist()),
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
