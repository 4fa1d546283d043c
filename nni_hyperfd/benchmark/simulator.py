"""The platform at scale: thousands of made-up tasks, like those of a table, go through the real platform and its state.

python -m nni_hyperfd.benchmark.simulator TABLE [--tasks 10000] [--seed 0] [--out FOLDER]

The tasks are simulated: `nni_hyperfd.benchmark.population` says how, what that assumes and what it cannot show.

Some tasks are lived: described, learned for, given their picks, told the results and closed through the `Platform`'s
own methods, on its SQLite file with its durable transactions. Between two lived tasks come up to 50 that are filled in,
as if users ran them side by side with the first: they are recommended to by what the platform had learned for that one,
and their rows (the tests compare them with those of lived tasks) are written at once. What the platform learns follows
from the stored rows alone, so what happens at the lived tasks, and all that is timed, is what it would be had all been
lived. Left out are the filled-in tasks' learning and their training of the encoder, which the default preset does not
recommend by. An update of the extractor changes its weights by very little, as meta-features come from the simulation;
its rows and its costs are real.

Written are simulator.csv, a row per stretch of tasks, simulator.txt (what is printed) and simulator.png. Seconds are of
the processor, one thread, so that waiting for the disk is not in them: medians over the last ten lived tasks of a
stretch. Rank% is that of the best of four picks among up to 200 of the table's configurations, over all tasks of the
stretch; tasks that were recommended to from the same past are one draw in its standard error. Beside the platform
stand the mean rank over the past tasks that it has learned from, random picks (their exact expectation), and the best
configurations on average over the population, which no one can know: what can be gained without telling tasks apart.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table as Printed
from sqlalchemy import select

from nni_hyperfd.belief.model import BeliefModel
from nni_hyperfd.benchmark import metrics, state, tables
from nni_hyperfd.benchmark.population import Population
from nni_hyperfd.benchmark.report import Estimate
from nni_hyperfd.method import MetaFeatureExtractor
from nni_hyperfd.platform import Platform
from nni_hyperfd.platform.presets import DefaultPreset
from nni_hyperfd.recommenders import base
from nni_hyperfd.recommenders.hyperfd import HyperFD
from nni_hyperfd.recommenders.simple import MeanRank
from nni_hyperfd.space import Configuration, EncodedConfigurations, SearchSpace
from nni_hyperfd.state.tables import EncoderRow, TaskRow, now
from nni_hyperfd.task import Phase, Preset, TaskSettings
from nni_hyperfd.wire import Description, ExtractorUpdate

SIDE_BY_SIDE = 50
"""Tasks that are recommended to from the same past, at most; and no more than a tenth of that past."""
MOST_CONFIGURATIONS = 1500
"""Of a larger table so many take part, drawn at random: a population's cost grows with their square."""
_TIMED = 10
_NUDGE = 1e-3
SECONDS = ("recommend", "learn", "close")
RANKED = ("platform", "mean_rank", "best_on_average")


@dataclass(frozen=True)
class World:
    """What is simulated. vectors: float32 (n, d), different configurations, as the platform encodes them."""

    population: Population
    vectors: np.ndarray
    seed: int

    @classmethod
    def of(cls, table: tables.Table, seed: int) -> World:
        """Raises TableError where the table has no two tasks to compare two different configurations by."""
        rng = np.random.default_rng([seed, 0])
        ranking = np.array([len(np.unique(row[np.isfinite(row)])) > 1 for row in table.performance], dtype=bool)
        # Two that look alike to the platform cannot both be candidates.
        _, first = np.unique(table.configurations.vectors, axis=0, return_index=True)
        usable = first[np.isfinite(table.performance[ranking][:, first]).sum(axis=0) >= 2]
        if len(usable) < 2:
            raise tables.TableError(
                f"Table {table.name} has fewer than two configurations that were measured on two tasks; measure on."
            )
        chosen = np.sort(rng.permutation(usable)[:MOST_CONFIGURATIONS])
        vectors = table.configurations.vectors[chosen]
        population = Population.fitted(table.performance[:, chosen], vectors, table.meta_features, rng)
        return cls(population, vectors[:, np.ptp(vectors, axis=0) > 0], seed)

    def task(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The performance of all configurations (n,) and the meta-feature (64,) of a task."""
        return self.population.draw(np.random.default_rng([self.seed, 1, number]))


class TablePlatform(Platform):
    """The platform, but that its candidates are rows of a table: a number of the space for each encoded column."""

    def __init__(self, path: Path, vectors: np.ndarray) -> None:
        super().__init__(path)
        self._default = DefaultPreset(self.store, self.versions)
        self._presets[Preset.DEFAULT] = self._default
        low, high = vectors.min(axis=0).tolist(), vectors.max(axis=0).tolist()
        definition = {f"x{i}": {"_type": "uniform", "_value": [low[i], high[i]]} for i in range(len(low))}
        self.space = SearchSpace.from_nni(definition)
        self.configurations: list[Configuration] = [dict(zip(definition, row, strict=True)) for row in vectors.tolist()]
        self.vectors = self.space.encode(self.configurations).vectors
        self._places = {self.space.key(one): place for place, one in enumerate(self.configurations)}

    def rows(self, seed: int, task_id: int, candidates: int) -> np.ndarray:
        """Which configurations a task can choose from."""
        return np.random.default_rng([seed, task_id]).permutation(len(self.configurations))[:candidates]

    def place(self, configuration: Configuration) -> int:
        return self._places[self.space.key(configuration)]

    @property
    def model(self) -> BeliefModel:
        """What it has learned last."""
        return self._default.learned[self.space.signature].model

    def candidates(self, space: SearchSpace, settings: TaskSettings, task_id: int, count: int) -> list[Configuration]:
        """Rows of the table."""
        return [self.configurations[place] for place in self.rows(settings.seed, task_id, count)]


@dataclass(frozen=True)
class Lived:
    """What a lived task cost, in seconds, and the configurations that it picked."""

    recommend: float
    learn: float
    close: float
    picks: list[int]


def live(platform: TablePlatform, settings: TaskSettings, number: int, performance: np.ndarray, h: np.ndarray) -> Lived:
    """One task's whole way through the platform. performance: (n,), of all configurations; h: (64,)."""
    task_id = platform.open_task(f"simulated {number}", platform.space, settings)
    platform.start(state.following(platform, task_id).id, 0)
    platform.describe(task_id, 0, Description(h.tolist(), 64, 100, 0.5))
    learn, _ = _timed(platform.prepare, task_id)
    seconds: list[float] = []
    picks: list[int] = []
    while True:
        spent, trial = _timed(state.following, platform, task_id)
        parameter_id = len(picks) + 1
        platform.start(trial.id, parameter_id)
        if trial.phase is not Phase.FINE_TUNE:
            break
        seconds.append(spent)
        picks.append(platform.place(trial.configuration))
        platform.observe(task_id, parameter_id, float(performance[picks[-1]]))
    close, _ = _timed(platform.close_task, task_id, _update(number, h))
    return Lived(float(np.mean(seconds)), learn, close, picks)


def fill(
    platform: TablePlatform, like: int, first: int, picked: list[tuple[list[int], np.ndarray, np.ndarray]]
) -> None:
    """Write the rows of tasks that ran side by side with the lived task `like`, which has just been closed.

    first: the first one's number. picked: of each the configurations it picked, and as `live` takes them what all of
    them bring and its meta-feature.
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
                task, experiment=f"simulated {number}", extractor_id=extractor.id, meta_feature=h.tolist(), closed=now()
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


def picks_of(
    model: BeliefModel, settings: TaskSettings, candidates: np.ndarray, performance: np.ndarray, h: np.ndarray
) -> list[int]:
    """What the platform picks, having learned `model`: places among the candidates' vectors (k, d), whose performance
    is (k,)."""
    recommender = HyperFD(settings.seed, model)
    recommender.start_task(base.Task(settings.budget, h), EncodedConfigurations(candidates))
    picks = []
    while asked := recommender.ask(1):
        recommender.tell(asked[0], float(performance[asked[0]]))
        picks += asked
    return picks


def schedule(tasks: int) -> list[int]:
    """How many tasks are recommended to from the same past, time after time: the first of each is lived."""
    sizes, past = [], 0
    for end in stretches(tasks):
        while past < end:
            sizes.append(min(max(1, past // 10), SIDE_BY_SIDE, end - past))
            past += sizes[-1]
    return sizes


def stretches(tasks: int) -> list[int]:
    """Where they end: after 10, 30, 100, 300, ... tasks, and after all."""
    ends = sorted(factor * 10**power for power in range(1, len(str(tasks)) + 1) for factor in (1, 3))
    return [end for end in ends if end < tasks] + [tasks]


@dataclass(frozen=True)
class Wave:
    """Tasks that were recommended to from the same past. rank_percent: by `RANKED`, of each task; before,
    size: bytes of the state before the first and after the last one."""

    lived: Lived
    rank_percent: dict[str, list[float]]
    before: int
    size: int


def simulate(world: World, tasks: int, state_file: Path) -> Iterator[Wave]:
    """Lead so many tasks through a new platform."""
    platform, settings = TablePlatform(state_file, world.vectors), TaskSettings(seed=world.seed)
    state.add_offline_sets(platform)
    ties, done = np.random.default_rng([world.seed, 2]), 0
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
        mean_rank = _mean_rank(platform.model, settings.budget)
        ranks: dict[str, list[float]] = {name: [] for name in RANKED}
        for own, picks, (performance, _) in zip(rows, picked, drawn, strict=True):
            mean_rank.start_task(base.Task(settings.budget), EncodedConfigurations(platform.vectors[own]))
            chosen = {
                "platform": [own.tolist().index(pick) for pick in picks],
                "mean_rank": mean_rank.ask(settings.budget),
                "best_on_average": np.argsort(-world.population.mean[own])[: settings.budget].tolist(),
            }
            for name, places in chosen.items():
                ranks[name].append(float(metrics.rank_percent(performance[own], places, ties)[-1]))
        done += size
        yield Wave(lived, ranks, before, state.bytes_used(platform))


def _mean_rank(model: BeliefModel, budget: int) -> MeanRank:
    """The mean rank over the past tasks that the platform has learned from."""
    recommender = MeanRank()
    for past in model.tasks:
        recommender.start_task(base.Task(budget), EncodedConfigurations(past.inputs))
        recommender.end_task(dict(enumerate(past.performance.tolist())))
    return recommender


def _update(number: int, h: np.ndarray) -> ExtractorUpdate:
    extractor = MetaFeatureExtractor.initial(state.CHANNELS + 4, seed=0).state_dict()
    generator = torch.Generator().manual_seed(number)
    nudged = {name: w + _NUDGE * torch.randn(w.shape, generator=generator) for name, w in extractor.items()}
    return ExtractorUpdate(nudged, {name: w.abs() for name, w in nudged.items()}, h.tolist())


def _timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    begin = time.process_time()
    result = function(*arguments)
    return time.process_time() - begin, result


@dataclass(frozen=True)
class Stretch:
    """A row of simulator.csv: the tasks from `first` to `last`, how many of them were lived, and what came out.

    Seconds: of a pick, of learning, and of closing a task. size: bytes of the state; per_task: those that it has grown
    by, for each task of the stretch.
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
    """A row per stretch."""
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
    """The mean of all values, and its standard error where those of a group hang together; NaN for one group."""
    count = sum(map(len, groups))
    mean = sum(map(sum, groups)) / count
    if len(groups) < 2:
        return Estimate(mean, float("nan"))
    squares = sum(sum(value - mean for value in group) ** 2 for group in groups)
    return Estimate(mean, float(np.sqrt(squares * len(groups) / (len(groups) - 1)) / count))


def by_chance(candidates: int, budget: int) -> float:
    """Rank% that the best of so many random picks has in expectation."""
    return 100 * (candidates + 1) / (min(budget, candidates) + 1) / candidates


def settled(stretches: Sequence[Stretch]) -> Stretch:
    """The first one from which on Rank% of the platform is never surely (by two standard errors) above that of the
    last: from there on nothing is seen to get better."""
    last = stretches[-1].platform
    for place, one in enumerate(stretches):
        apart = [s.platform.mean - last.mean - 2 * np.hypot(s.platform.error, last.error) for s in stretches[place:-1]]
        if all(distance <= 0 for distance in apart):
            return one
    return stretches[-1]


def statement(table: tables.Table, world: World, stretches: Sequence[Stretch], chance: float) -> str:
    """What was found, in sentences."""
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
            f"Rank% of tasks {last.first:,} to {last.last:,}: platform {last.platform}, mean rank of the same past"
            f" tasks {last.mean_rank}, best on average {last.best_on_average}, random {chance:.3g}.",
            f"Rank% of the platform stops getting surely better with tasks {best.first:,} to {best.last:,}"
            f" ({best.platform}).",
        ]
    )


def printed(stretches: Sequence[Stretch]) -> Printed:
    names = ("tasks", *RANKED, *(f"{name} (s)" for name in SECONDS), "MB", "bytes per task")
    result = Printed(*names, title="Simulated")
    for one in stretches:
        ranks = [str(getattr(one, name)) for name in RANKED]
        seconds = [f"{getattr(one, name):.3f}" for name in SECONDS]
        result.add_row(
            f"{one.first:,} to {one.last:,}", *ranks, *seconds, f"{one.size / 1e6:.1f}", f"{one.per_task:,.0f}"
        )
    return result


def write(stretches: Sequence[Stretch], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        measured = [column for name in RANKED for column in (name, f"{name}_se")]
        columns = (*SECONDS, "size", "per_task")
        writer.writerow(["first", "last", "lived", *measured, *columns])
        for one in stretches:
            ranks = [number for name in RANKED for number in (getattr(one, name).mean, getattr(one, name).error)]
            writer.writerow([one.first, one.last, one.lived, *ranks, *(getattr(one, name) for name in columns)])


def draw(stretches: Sequence[Stretch], chance: float, title: str, path: Path) -> None:
    """Three panels against the number of tasks: Rank% with standard errors, seconds, bytes per task."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.8), layout="constrained")
    figure.suptitle(title)
    ranks, seconds, size = figure.subplots(1, 3)
    last = [one.last for one in stretches]
    middle = [np.sqrt(one.first * one.last) for one in stretches]
    labels = ("platform", "mean rank of the same past tasks", "best on average (no one can know it)")
    for place, (name, label) in enumerate(zip(RANKED, labels, strict=True)):
        mean = np.array([getattr(one, name).mean for one in stretches])
        error = np.nan_to_num([getattr(one, name).error for one in stretches])
        ranks.plot(middle, mean, marker=".", color=f"C{place}", label=label)
        ranks.fill_between(middle, mean - error, mean + error, color=f"C{place}", alpha=0.15)
    ranks.axhline(chance, color="black", linestyle=":", label="random")
    ranks.set(title="Rank% of the best of four picks, ± a standard error", ylabel="Rank%", ylim=(0, None))
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


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of a table.", metavar="TABLE")],
    tasks: Annotated[int, typer.Option(min=2, help="How many tasks to simulate.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for the CSV, the text and the figure.")] = Path("simulator"),
) -> None:
    """Thousands of simulated tasks through the real platform: time, state and quality."""
    torch.set_num_threads(1)
    try:
        table = tables.load(folder)
        world = World.of(table, seed)
        out.mkdir(parents=True, exist_ok=True)
    except (tables.TableError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    waves: list[Wave] = []
    with TemporaryDirectory() as scratch, Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("simulated tasks", total=tasks)
        for wave in simulate(world, tasks, Path(scratch) / "state.sqlite"):
            waves.append(wave)
            progress.advance(bar, len(wave.rank_percent[RANKED[0]]))
    stretches = summarised(waves)
    settings = TaskSettings()
    chance = by_chance(min(settings.candidates, len(world.vectors)), settings.budget)
    write(stretches, out / "simulator.csv")
    told = statement(table, world, stretches, chance)
    (out / "simulator.txt").write_text(told + "\n")
    title = f"{tasks:,} simulated tasks, from a model of {table.name}: {len(world.population.marginals)} data sets"
    draw(stretches, chance, f"{title}, {len(world.vectors)} configurations", out / "simulator.png")
    Console().print(printed(stretches))
    Console().print(told, highlight=False, markup=False)


if __name__ == "__main__":
    typer.run(main)
