"""The platform at scale: thousands of simulated tasks, like those of a table, go through the real platform.

    python -m nni_hyperfd.benchmark.simulator TABLE [--tasks 10000] [--regime real] [--seed 0] [--out FOLDER]

Real and revealed, the first simulated tasks are the platform's own data sets (8, or --offline): all results of their
candidates are in the state before the first client's task. Of a client's task the state holds the picks' results;
revealed, those of all candidates are imported when it has ended.

`nni_hyperfd.benchmark.population` says how the tasks are simulated, what that assumes and what it cannot show.

Some tasks are lived: they are described, learned for, given their picks, told the results and closed through the
`Platform`'s own methods, on its SQLite file with its durable transactions. Between two lived tasks come up to 50 that
are filled in, as if users ran them side by side with the first: they get recommendations from what the platform had
learned for that one, and their rows (the tests compare them with those of lived tasks) are written at once. What the
platform learns follows from the stored rows alone, so the lived tasks, and all that is timed, are as if all had been
lived. Left out are the filled-in tasks' learning and their training of the encoder, which the default preset does not
use for its recommendations. An update of the extractor changes its weights by very little, as meta-features come from
the simulation; its rows and its costs are real.

The program writes simulator.csv (a row per stretch of tasks), simulator.txt (what is printed) and simulator.png.
Seconds are processor time of one thread, so that waiting for the disk is not in them: medians over the last ten lived
tasks of a stretch. Rank% is that of the best of four picks among up to 200 of the table's configurations, over all
tasks of the stretch; tasks that got recommendations from the same past count as one draw in its standard error. For
comparison there are the mean rank over the past tasks that the platform has learned from, random picks (their exact
expectation), and the best configurations on average over the population, which no one can know: what can be gained
without telling tasks apart.
"""

from __future__ import annotations

import csv
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table as Printed
from sqlalchemy import select

from nni_hyperfd.belief.model import BeliefModel
from nni_hyperfd.benchmark import metrics, state, tables
from nni_hyperfd.benchmark.descriptions import PAIRS, as_known
from nni_hyperfd.benchmark.options import RegimeOption
from nni_hyperfd.benchmark.population import Population
from nni_hyperfd.benchmark.protocol import Protocol, ProtocolError
from nni_hyperfd.benchmark.regime import Regime
from nni_hyperfd.benchmark.report import Estimate
from nni_hyperfd.files import atomic, write_text
from nni_hyperfd.method import MetaFeatureExtractor
from nni_hyperfd.platform import Platform
from nni_hyperfd.platform.platform import keep_space
from nni_hyperfd.platform.presets import DefaultPreset
from nni_hyperfd.recommenders import base
from nni_hyperfd.recommenders.hyperfd import HyperFD
from nni_hyperfd.recommenders.simple import MeanRank
from nni_hyperfd.space import Configuration, EncodedConfigurations, SearchSpace
from nni_hyperfd.state.tables import EncoderRow, TaskRow, TrialRow, now
from nni_hyperfd.task import Phase, Preset, Status, TaskSettings
from nni_hyperfd.wire import Description, ExtractorUpdate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDE_BY_SIDE = 50
"""Maximum number of tasks that get recommendations from the same past; it is at most a tenth of that past, too."""
MAX_CONFIGURATIONS = 1500
"""Maximum number of configurations, drawn at random from larger tables: a population's cost grows with its square."""
_TIMED = 10
"""Number of lived tasks of a stretch whose times count, the last ones."""
_NUDGE = 1e-3
"""Standard deviation of the simulated updates of the extractor's weights."""
SECONDS = ("recommend", "learn", "close")
RANKED = ("platform", "mean_rank", "best_on_average")
_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True)
class World:
    """What is simulated.

    Attributes:
        population: where tasks come from.
        vectors: float32 (n, d), different configurations, as the platform encodes them.
        seed: of everything.
    """

    population: Population
    vectors: NDArray[np.float32]
    seed: int

    @classmethod
    def of(cls, table: tables.Table, seed: int) -> World:
        """Make a world of a table, as the platform would know it (`descriptions.as_known`).

        Raises:
            TableError: fewer than two different configurations were measured on two tasks.
        """
        rng = np.random.default_rng([seed, 0])
        ranking = np.array([len(np.unique(row[np.isfinite(row)])) > 1 for row in table.performance], dtype=bool)
        # Two that look alike to the platform cannot both be candidates.
        _, first = np.unique(table.configurations.vectors, axis=0, return_index=True)
        usable = first[np.isfinite(table.performance[ranking][:, first]).sum(axis=0) >= 2]
        if len(usable) < 2:
            raise tables.TableError(
                f"Table {table.name} has fewer than two configurations that were measured on two tasks; measure on."
            )
        chosen = np.sort(rng.permutation(usable)[:MAX_CONFIGURATIONS])
        vectors = table.configurations.vectors[chosen]
        population = Population.fitted(table.performance[:, chosen], vectors, table.meta_features, rng)
        return cls(population, vectors[:, np.ptp(vectors, axis=0) > 0], seed)

    def task(self, number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The performance of all configurations (n,) and the meta-feature (64,) of a task."""
        return self.population.draw(np.random.default_rng([self.seed, 1, number]))


class TablePlatform(Platform):
    """The platform with rows of a table as candidates: its space has a number for each encoded column.

    Args:
        path: of the state.
        vectors: (n, d), the encoded configurations of the table.
    """

    def __init__(self, path: Path, vectors: NDArray[np.float32]) -> None:
        super().__init__(path)
        self._default = DefaultPreset(self.store, self.versions)
        self._presets[Preset.DEFAULT] = self._default
        low, high = vectors.min(axis=0).tolist(), vectors.max(axis=0).tolist()
        definition = {f"x{i}": {"_type": "uniform", "_value": [low[i], high[i]]} for i in range(len(low))}
        self.space = SearchSpace.from_nni(definition)
        self.configurations: list[Configuration] = [dict(zip(definition, row, strict=True)) for row in vectors.tolist()]
        self.vectors = self.space.encode(self.configurations).vectors
        self._places = {self.space.key(one): place for place, one in enumerate(self.configurations)}

    def rows(self, seed: int, task_id: int, candidates: int) -> NDArray[np.int64]:
        """Indices of the configurations that a task can choose from."""
        return np.random.default_rng([seed, task_id]).permutation(len(self.configurations))[:candidates]

    def place(self, configuration: Configuration) -> int:
        """Index of a configuration."""
        return self._places[self.space.key(configuration)]

    @property
    def model(self) -> BeliefModel:
        """The model that was learned last."""
        return self._default.learned[self.space.signature].model

    def candidates(self, space: SearchSpace, settings: TaskSettings, task_id: int, count: int) -> list[Configuration]:
        """Rows of the table."""
        return [self.configurations[place] for place in self.rows(settings.seed, task_id, count)]


@dataclass(frozen=True)
class Lived:
    """The costs and picks of a lived task.

    Attributes:
        recommend: processor seconds of a pick, on average.
        learn: processor seconds of learning.
        close: processor seconds of closing the task.
        picks: indices of the picked configurations.
    """

    recommend: float
    learn: float
    close: float
    picks: list[int]


def live(
    platform: TablePlatform,
    settings: TaskSettings,
    number: int,
    performance: NDArray[np.float64],
    h: NDArray[np.float64],
) -> Lived:
    """Lead a task its whole way through the platform.

    Args:
        platform: the platform.
        settings: of the task.
        number: of the task.
        performance: (n,), of all configurations.
        h: (64,), the meta-feature.
    """
    task_id = platform.open_task(f"simulated {number}", platform.space, settings)
    platform.start(state.following(platform, task_id).id, 0)
    platform.describe(task_id, 0, Description(h.tolist(), 64, 100, 0.5))
    learn, _ = _timed(platform.prepare, task_id)
    seconds: list[float] = []
    picks: list[int] = []
    for parameter_id in range(1, settings.budget + 1):
        spent, trial = _timed(state.following, platform, task_id)
        platform.start(trial.id, parameter_id)
        seconds.append(spent)
        picks.append(platform.place(trial.configuration))
        platform.observe(task_id, parameter_id, float(performance[picks[-1]]))
    close, _ = _timed(platform.close_task, task_id, _update(number, h))
    return Lived(float(np.mean(seconds)), learn, close, picks)


def fill(
    platform: TablePlatform,
    like: int,
    first: int,
    picked: list[tuple[list[int], NDArray[np.float64], NDArray[np.float64]]],
) -> None:
    """Write the rows of tasks that ran side by side with a lived task.

    Args:
        platform: the platform.
        like: id of the lived task, which has just been closed.
        first: number of the first filled-in task.
        picked: of each task the indices of its picks, the performance of all configurations (n,), and its meta-feature
            (64,).
    """
    with platform.store.write() as session:
        task, head = session.get_one(TaskRow, like), platform.versions.head(session)
        encoder = session.scalar(select(EncoderRow).where(EncoderRow.task_id == like))
        numbers = range(first, first + len(picked))
        # Side by side only one update becomes the newest version; of the others, what their tasks need is kept.
        extractors = [
            state.copied(head, head=False, weights=f"dropped {n}", importance=f"dropped {n}", created=now())
            for n in numbers
        ]
        session.add_all(extractors)
        session.flush()
        tasks = []
        for number, extractor, (picks, performance, h) in zip(numbers, extractors, picked, strict=True):
            twin = state.copied(
                task,
                experiment=f"simulated {number}",
                extractor_id=extractor.id,
                meta_feature=h.tolist(),
                closed=now(),
                learned=now(),
            )
            fine_tuned = iter(picks)
            for trial in task.trials:
                changes: dict[str, Any] = {"task_id": None}
                if trial.phase is Phase.EXTRACT:  # the state's ids follow each other
                    own = platform.rows(task.settings.seed, like + 1 + number - first, 1)
                    changes["configuration"] = platform.configurations[own[0]]
                if trial.phase is Phase.FINE_TUNE:
                    place = next(fine_tuned)
                    configuration = platform.configurations[place]
                    changes |= {"configuration": configuration, "performance": float(performance[place])}
                twin.trials.append(state.copied(trial, **changes))
            tasks.append(twin)
        session.add_all(tasks)
        session.flush()
        if encoder is not None:
            session.add_all(state.copied(encoder, task_id=t.id) for t in tasks)


def know(platform: TablePlatform, world: World, settings: TaskSettings, count: int) -> None:
    """Store the first tasks as the platform's own data sets, with all results of their candidates."""
    state.add_offline_sets(platform, count)
    most = min(settings.candidates, PAIRS // max(1, count))
    for number in range(count):
        performance, h = world.task(number)
        with platform.store.write() as session:
            task = TaskRow(
                experiment=f"offline {number}",
                space_signature=keep_space(session, platform.space),
                settings=settings,
                dataset=str(number),
                extractor_id=platform.versions.head(session).id,
                meta_feature=h.tolist(),
                closed=now(),
                learned=now(),
            )
            session.add(task)
            _import(platform, task, platform.rows(settings.seed, number + 1, most), performance)


def reveal(
    platform: TablePlatform, first: int, rows: Sequence[NDArray[np.int64]], performances: Sequence[NDArray[np.float64]]
) -> None:
    """Import the results that closed tasks did not bring themselves.

    Args:
        platform: the platform.
        first: id of the first task.
        rows: of each task the indices (k,) of its candidates.
        performances: of each task the performance of all configurations (n,).
    """
    with platform.store.write() as session:
        for task_id, own, performance in zip(itertools.count(first), rows, performances, strict=False):
            task = session.get_one(TaskRow, task_id)
            tried = [platform.place(trial.configuration) for trial in task.trials if trial.phase is Phase.FINE_TUNE]
            _import(platform, task, own[~np.isin(own, tried)], performance)


def _import(platform: TablePlatform, task: TaskRow, rows: NDArray[np.int64], performance: NDArray[np.float64]) -> None:
    """Add the results of these configurations to a closed task."""
    for place in rows:
        trial = TrialRow(
            phase=Phase.IMPORT,
            status=Status.SUCCEEDED,
            configuration=platform.configurations[place],
            performance=float(performance[place]),
            ended=now(),
        )
        task.trials.append(trial)


def picks_of(
    model: BeliefModel,
    settings: TaskSettings,
    candidates: NDArray[np.float32],
    performance: NDArray[np.float64],
    h: NDArray[np.float64],
) -> list[int]:
    """The platform's picks for a task when it has learned `model`.

    Args:
        model: what has been learned.
        settings: of the task.
        candidates: (k, d), encoded.
        performance: (k,), of the candidates.
        h: (64,), the meta-feature.

    Returns:
        Indices of the candidates.
    """
    recommender = HyperFD(settings.seed, model)
    recommender.start_task(base.Task(settings.budget, h.astype(np.float32)), EncodedConfigurations(candidates))
    picks: list[int] = []
    while asked := recommender.ask(1):
        recommender.tell(asked[0], float(performance[asked[0]]))
        picks += asked
    return picks


def schedule(tasks: int) -> list[int]:
    """Numbers of tasks that get recommendations from the same past, in order; the first of each is lived."""
    sizes: list[int] = []
    past = 0
    for end in stretches(tasks):
        while past < end:
            sizes.append(min(max(1, past // 10), SIDE_BY_SIDE, end - past))
            past += sizes[-1]
    return sizes


def stretches(tasks: int) -> list[int]:
    """Ends of the stretches: 10, 30, 100, 300, ... tasks, and all of them."""
    ends = sorted(factor * 10**power for power in range(1, len(str(tasks)) + 1) for factor in (1, 3))
    return [end for end in ends if end < tasks] + [tasks]


@dataclass(frozen=True)
class Wave:
    """Tasks that got recommendations from the same past.

    Attributes:
        lived: the first one, which was lived.
        rank_percent: Rank% (in %) of each task, by `RANKED`.
        before: bytes of the state before the first task.
        size: bytes of the state after the last task.
    """

    lived: Lived
    rank_percent: dict[str, list[float]]
    before: int
    size: int


def simulate(world: World, protocol: Protocol, tasks: int, state_file: Path) -> Iterator[Wave]:
    """Lead tasks through a new platform.

    Args:
        world: where the tasks come from.
        protocol: with the regime and the number of offline data sets.
        tasks: number of tasks, beside the offline data sets.
        state_file: path of the new state.
    """
    platform, settings = TablePlatform(state_file, world.vectors), TaskSettings(seed=world.seed)
    done = protocol.offline or 0
    know(platform, world, settings, done)
    ties = np.random.default_rng([world.seed, 2])
    for size in schedule(tasks):
        before = state.bytes_used(platform)
        drawn = [world.task(done + place) for place in range(size)]
        # The state's ids begin with 1 and follow each other.
        rows = [platform.rows(settings.seed, done + place + 1, settings.candidates) for place in range(size)]
        lived = live(platform, settings, done, *drawn[0])
        picked = [lived.picks]
        for own, (performance, h) in zip(rows[1:], drawn[1:], strict=True):
            places = picks_of(platform.model, settings, platform.vectors[own], performance[own], h)
            picked.append(own[places].tolist())
        if size > 1:
            others = [(picks, *task) for picks, task in zip(picked[1:], drawn[1:], strict=True)]
            fill(platform, done + 1, done + 1, others)
        if protocol.regime is Regime.REVEALED:
            reveal(platform, done + 1, rows, [performance for performance, _ in drawn])
        ranks = _ranks(platform, world, settings.budget, rows, picked, [performance for performance, _ in drawn], ties)
        done += size
        yield Wave(lived, ranks, before, state.bytes_used(platform))


def _ranks(
    platform: TablePlatform,
    world: World,
    budget: int,
    rows: Sequence[NDArray[np.int64]],
    picked: Sequence[Sequence[int]],
    performances: Sequence[NDArray[np.float64]],
    ties: np.random.Generator,
) -> dict[str, list[float]]:
    """Rank% of each task of a wave, by `RANKED`.

    Args:
        platform: the platform, after the tasks.
        world: where the tasks come from.
        budget: picks per task.
        rows: of each task the indices (k,) of its candidates.
        picked: of each task the indices of the platform's picks.
        performances: of each task the performance of all configurations (n,).
        ties: breaks ties.
    """
    mean_rank = _mean_rank(platform.model, budget)
    ranks: dict[str, list[float]] = {name: [] for name in RANKED}
    for own, picks, performance in zip(rows, picked, performances, strict=True):
        mean_rank.start_task(base.Task(budget), EncodedConfigurations(platform.vectors[own]))
        chosen = {
            "platform": [own.tolist().index(pick) for pick in picks],
            "mean_rank": mean_rank.ask(budget),
            "best_on_average": np.argsort(-world.population.mean[own])[:budget].tolist(),
        }
        for name, places in chosen.items():
            ranks[name].append(float(metrics.rank_percent(performance[own], places, ties)[-1]))
    return ranks


def _mean_rank(model: BeliefModel, budget: int) -> MeanRank:
    """The mean rank over the past tasks that the platform has learned from."""
    recommender = MeanRank()
    for past in model.tasks:
        recommender.start_task(base.Task(budget), EncodedConfigurations(past.inputs))
        recommender.end_task(dict(enumerate(past.performance.tolist())))
    return recommender


def _update(number: int, h: NDArray[np.float64]) -> ExtractorUpdate:
    """A simulated update of the extractor by a task with the meta-feature h (64,)."""
    extractor = MetaFeatureExtractor.initial(state.CHANNELS + 4, seed=0).state_dict()
    generator = torch.Generator().manual_seed(number)
    nudged = {name: w + _NUDGE * torch.randn(w.shape, generator=generator) for name, w in extractor.items()}
    return ExtractorUpdate(nudged, {name: w.abs() for name, w in nudged.items()}, h.tolist())


def _timed(function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> tuple[float, _R]:
    """Processor seconds of a call, and its result."""
    begin = time.process_time()
    result = function(*args, **kwargs)
    return time.process_time() - begin, result


@dataclass(frozen=True)
class Stretch:
    """A row of simulator.csv.

    Attributes:
        first: number of the first task, from 1.
        last: number of the last task.
        lived: number of tasks that were lived.
        platform: Rank% of the platform's picks.
        mean_rank: Rank% of the mean rank of past tasks.
        best_on_average: Rank% of the configurations that are best on average.
        recommend: processor seconds of a pick.
        learn: processor seconds of learning.
        close: processor seconds of closing a task.
        size: bytes of the state.
        per_task: bytes by which the state has grown, per task of the stretch.
    """

    first: int
    last: int
    lived: int
    platform: Estimate
    mean_rank: Estimate
    best_on_average: Estimate
    recommend: float
    learn: float
    close: float
    size: int
    per_task: float


def summarised(waves: Sequence[Wave]) -> list[Stretch]:
    """Summarise waves, a row per stretch."""
    result: list[Stretch] = []
    own: list[Wave] = []
    tasks = sum(len(wave.rank_percent[RANKED[0]]) for wave in waves)
    ends, last = set(stretches(tasks)), 0
    for wave in waves:
        own.append(wave)
        last += len(wave.rank_percent[RANKED[0]])
        if last in ends:
            first, before = (result[-1].last + 1, result[-1].size) if result else (1, own[0].before)
            timed = [w.lived for w in own[-_TIMED:]]
            platform, mean_rank, best = (clustered([w.rank_percent[name] for w in own]) for name in RANKED)
            recommend, learn, close = (float(median(getattr(one, name) for one in timed)) for name in SECONDS)
            result.append(
                Stretch(
                    first,
                    last,
                    len(own),
                    platform,
                    mean_rank,
                    best,
                    recommend,
                    learn,
                    close,
                    wave.size,
                    per_task=(wave.size - before) / (last - first + 1),
                )
            )
            own = []
    return result


def clustered(groups: Sequence[Sequence[float]]) -> Estimate:
    """The mean of all values with its cluster-robust standard error, which is NaN for a single group."""
    count = sum(map(len, groups))
    mean = sum(map(sum, groups)) / count
    if len(groups) < 2:
        return Estimate(mean, float("nan"))
    squares = sum(sum(value - mean for value in group) ** 2 for group in groups)
    return Estimate(mean, float(np.sqrt(squares * len(groups) / (len(groups) - 1)) / count))


def by_chance(candidates: int, budget: int) -> float:
    """Expected Rank% of the best of random picks."""
    return 100 * (candidates + 1) / (min(budget, candidates) + 1) / candidates


def settled(stretches: Sequence[Stretch]) -> Stretch:
    """The stretch from which on the platform gets no better.

    It is the first from which on Rank% is never above that of the last stretch by more than two standard errors.
    """
    last = stretches[-1].platform
    for place, one in enumerate(stretches):
        apart = [s.platform.mean - last.mean - 2 * np.hypot(s.platform.error, last.error) for s in stretches[place:-1]]
        if all(distance <= 0 for distance in apart):
            return one
    return stretches[-1]


def statement(
    table: tables.Table, world: World, protocol: Protocol, stretches: Sequence[Stretch], chance: float
) -> str:
    """The findings, in sentences; chance: Rank% of random picks."""
    population, last, best = world.population, stretches[-1], settled(stretches)
    budget = TaskSettings().budget
    total = budget * last.recommend + last.learn + last.close
    earlier = next((one for one in stretches if one.last >= 100), last)
    was = budget * earlier.recommend + earlier.learn + earlier.close
    return "\n".join(
        [
            f"SIMULATED tasks, from a model of {table.name}: {len(population.marginals)} data sets,"
            f" {len(world.vectors)} configurations. {table.gaps}".strip(),
            f"Two of its tasks' ranks correlate by about {population.likeness:.2f}; meta-features explain"
            f" {population.telling:.0%} of what sets the table's tasks apart.",
            f"At {last.last:,} tasks, 1,000 more cost {1000 * total:,.0f} processor seconds, and {last.per_task:,.0f}"
            f" bytes each; at {earlier.last:,} tasks {1000 * was:,.0f} s and {earlier.per_task:,.0f} bytes.",
            f"{protocol}: Rank% of tasks {last.first:,} to {last.last:,}: platform {last.platform}, mean rank of the"
            f" same past tasks {last.mean_rank}, best on average {last.best_on_average}, random {chance:.3g}.",
            f"{protocol}: Rank% of the platform stops getting surely better with tasks {best.first:,} to {best.last:,}"
            f" ({best.platform}).",
        ]
    )


def printed(stretches: Sequence[Stretch], protocol: Protocol) -> Printed:
    """The stretches as a table."""
    names = ("tasks", *RANKED, *(f"{name} (s)" for name in SECONDS), "MB", "bytes per task")
    result = Printed(*names, title=f"Simulated: {protocol}")
    for one in stretches:
        ranks = [str(getattr(one, name)) for name in RANKED]
        seconds = [f"{getattr(one, name):.3f}" for name in SECONDS]
        result.add_row(
            f"{one.first:,} to {one.last:,}", *ranks, *seconds, f"{one.size / 1e6:.1f}", f"{one.per_task:,.0f}"
        )
    return result


def write(stretches: Sequence[Stretch], protocol: Protocol, path: Path) -> None:
    """Write simulator.csv."""
    with atomic(path) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file)
        measured = [column for name in RANKED for column in (name, f"{name}_se")]
        columns = (*SECONDS, "size", "per_task")
        writer.writerow(["regime", "offline", "first", "last", "lived", *measured, *columns])
        for one in stretches:
            ranks = [number for name in RANKED for number in (getattr(one, name).mean, getattr(one, name).error)]
            how = [protocol.regime.value, protocol.offline]
            writer.writerow([*how, one.first, one.last, one.lived, *ranks, *(getattr(one, name) for name in columns)])


def draw(stretches: Sequence[Stretch], chance: float, title: str, path: Path) -> None:
    """Draw three panels against the number of tasks: Rank% with standard errors, seconds, and bytes per task."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.8), layout="constrained")
    figure.suptitle(title)
    ranks, seconds, size = figure.subplots(1, 3)
    last = [one.last for one in stretches]
    _draw_ranks(ranks, stretches, chance)
    for place, (name, label) in enumerate(
        zip(SECONDS, ("recommend (a pick)", "update: learn", "update: close"), strict=True)
    ):
        values = [getattr(one, name) for one in stretches]
        seconds.plot(last, values, marker=".", color=f"C{place}", label=label)
    seconds.set(title="Processor seconds of the platform", ylabel="s")
    seconds.set_ylim(0, 1.3 * seconds.get_ylim()[1])  # room for the legend
    size.plot(last, [one.per_task / 1000 for one in stretches], marker=".", color="C0")
    size.set(title="What a task adds to the state", ylabel="kB", ylim=(0, None))
    for panel in (ranks, seconds, size):
        panel.set(xscale="log", xlabel="tasks so far")
        panel.grid(alpha=0.3)
    ranks.legend(fontsize="small")
    seconds.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def _draw_ranks(panel: Axes, stretches: Sequence[Stretch], chance: float) -> None:
    """Rank% of the platform and of what it is compared with, in the middle of each stretch."""
    middle = [np.sqrt(one.first * one.last) for one in stretches]
    labels = ("platform", "mean rank of the same past tasks", "best on average (no one can know it)")
    for place, (name, label) in enumerate(zip(RANKED, labels, strict=True)):
        mean = np.array([getattr(one, name).mean for one in stretches])
        error = np.nan_to_num([getattr(one, name).error for one in stretches])
        panel.plot(middle, mean, marker=".", color=f"C{place}", label=label)
        panel.fill_between(middle, mean - error, mean + error, color=f"C{place}", alpha=0.15)
    panel.axhline(chance, color="black", linestyle=":", label="random")
    panel.set(title="Rank% of the best of four picks, ± a standard error", ylabel="Rank%", ylim=(0, None))


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of a table.", metavar="TABLE")],
    tasks: Annotated[int, typer.Option(min=2, help="How many tasks to simulate.")] = 10_000,
    regime: RegimeOption = Regime.REAL,
    offline: Annotated[
        int | None,
        typer.Option(min=0, help="How many simulated tasks are the platform's own; 8 by default, cold none."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for the CSV, the text and the figure.")] = Path("simulator"),
) -> None:
    """Lead thousands of simulated tasks through the real platform: time, state and quality."""
    torch.set_num_threads(1)
    try:
        default = 0 if regime is Regime.COLD else state.OFFLINE_SETS
        protocol = Protocol(regime, default if offline is None else offline)
        table = tables.load(folder)
        world = World.of(as_known(table, table.own if protocol.offline else [], None, seed), seed)
        out.mkdir(parents=True, exist_ok=True)
    except (tables.TableError, ProtocolError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    waves: list[Wave] = []
    with TemporaryDirectory() as scratch, Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("simulated tasks", total=tasks)
        for wave in simulate(world, protocol, tasks, Path(scratch) / "state.sqlite"):
            waves.append(wave)
            progress.advance(bar, len(wave.rank_percent[RANKED[0]]))
    stretches = summarised(waves)
    settings = TaskSettings()
    chance = by_chance(min(settings.candidates, len(world.vectors)), settings.budget)
    write(stretches, protocol, out / "simulator.csv")
    told = statement(table, world, protocol, stretches, chance)
    write_text(out / "simulator.txt", told + "\n")
    title = f"{tasks:,} simulated tasks, from a model of {table.name}: {len(world.population.marginals)} data sets"
    draw(stretches, chance, f"{title}, {len(world.vectors)} configurations; {protocol}", out / "simulator.png")
    Console().print(printed(stretches, protocol))
    Console().print(told, highlight=False, markup=False)


if __name__ == "__main__":
    typer.run(main)
