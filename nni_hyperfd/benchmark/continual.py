"""What continual learning is worth, and what is forgotten: the paper's recipe and its ablations on tables.

    python -m nni_hyperfd.benchmark.continual TABLE... --seeds 20 --output DIR

On the server's own data sets the ranker is warmed up, they are the negatives of the triplets, and the transformation of
eq. 4 (docs/method.md) is fitted to them. Where a table names none, a third of its tasks, at least two, take no part in
a run and are the server's. Past tasks are asked again right after they were learned from and after the last task, with
the candidates that they had; nothing is learned from asking again.
"""

from __future__ import annotations

import copy
import csv
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table as Printed

from nni_hyperfd.benchmark import metrics, report, tables
from nni_hyperfd.benchmark.protocol import Outcome, Protocol, Turn, pick_all, run, turns
from nni_hyperfd.benchmark.server import offline, run_of, taught
from nni_hyperfd.files import atomic
from nni_hyperfd.method.learning import WarmUp
from nni_hyperfd.method.settings import RankerSettings
from nni_hyperfd.recommenders import MeasuredDataset, Recommender, make
from nni_hyperfd.recommenders.continual import (
    FrozenExtractor,
    FrozenRanker,
    LatestDataOnly,
    NoTransformation,
    Oracle,
)
from nni_hyperfd.recommenders.paper import PaperHyperFD

FULL = "full"
PAPER: dict[str, type[PaperHyperFD]] = {
    FULL: PaperHyperFD,
    "latest data only": LatestDataOnly,
    "frozen extractor": FrozenExtractor,
    "frozen ranker": FrozenRanker,
    "no transformation": NoTransformation,
    "oracle": Oracle,
}
"""The paper's recipe and its ablations."""
OTHERS = ("hyperfd", "mean_rank")
"""Names of other recommenders, whose first tasks are the server's data sets."""


@dataclass(frozen=True)
class AskedAgain:
    """Mean Rank% (in %) of a run's first tasks.

    Attributes:
        first_asked: when they were tasks.
        learned: asked again right after learning from each.
        after_last: asked again after the last task.
    """

    first_asked: float
    learned: float
    after_last: float


def warmed_up(seed: int, settings: RankerSettings, own: Sequence[MeasuredDataset]) -> WarmUp:
    """Warm up once for all of `PAPER`.

    Args:
        seed: of the warm-up.
        settings: constants of the method.
        own: the server's own data sets.

    Raises:
        ValueError: the server has none.
    """
    if not own:
        raise ValueError("The server has no data sets of its own to warm up on.")
    recommender = PaperHyperFD(seed, settings, own)
    recommender.start_task(own[0].task, own[0].candidates)
    if recommender.warmed is None:
        raise RuntimeError("The recommender was not warmed up on the data sets that it was given.")
    return recommender.warmed


def lead(
    table: tables.Table, protocol: Protocol, recommender: Recommender, seed: int, again: int
) -> tuple[list[Outcome], AskedAgain]:
    """Lead a recommender through the run of this seed, and ask it again about the first tasks.

    Args:
        table: where the tasks come from.
        protocol: how the run goes.
        recommender: a new one.
        seed: of the run.
        again: number of the first scored tasks that are asked again.

    Returns:
        The outcomes of the scored tasks, and how it did on the first ones when asked again.
    """
    outcomes, first_turns = [], turns(table, protocol, seed)[protocol.given :][:again]
    learned = []
    for outcome in run(table, protocol, lambda _: recommender, seed):
        outcomes.append(outcome)
        if len(outcomes) <= again:
            learned.append(_rank_percent(table, recommender, first_turns[len(outcomes) - 1], protocol, seed))
    last = [_rank_percent(table, recommender, turn, protocol, seed) for turn in first_turns]
    first = [outcome.rank_percent[-1] for outcome in outcomes[:again]]
    return outcomes, AskedAgain(*(float(np.mean(ranks)) for ranks in (first, learned, last)))


def _rank_percent(table: tables.Table, recommender: Recommender, turn: Turn, protocol: Protocol, seed: int) -> float:
    """Rank% of the picks of a copy, so that asking leaves no trace."""
    recommender = copy.deepcopy(recommender)
    recommender.start_task(table.task(turn.task, protocol.budget), turn.candidates)
    picks = pick_all(recommender, turn.performance, protocol.budget)
    return float(metrics.rank_percent(turn.performance, picks, np.random.default_rng([seed, 1]))[-1])


def main(
    folders: Annotated[list[Path], typer.Argument(help="Folders of tables.", metavar="TABLE")],
    seeds: Annotated[int, typer.Option(min=1, help="How many runs, with the seeds 0, 1, ...")] = 20,
    output: Annotated[Path, typer.Option(help="Folder for the CSV.")] = Path("continual"),
    tasks: Annotated[int, typer.Option(min=2, help="Tasks per run, at most.")] = 16,
    again: Annotated[int, typer.Option(min=1, help="How many of the first tasks are asked again.")] = 4,
    exploration: Annotated[float, typer.Option(min=0, max=1, help="Share of the budget drawn at random.")] = 0.5,
) -> None:
    """Run the paper's recipe, its ablations and two references; values per seed go to continual.csv."""
    settings = RankerSettings(exploration=exploration)
    try:
        loaded = [tables.load(folder) for folder in folders]
        output.mkdir(parents=True, exist_ok=True)
    except (tables.TableError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    if small := [table.name for table in loaded if len(table.tasks) < 4]:
        raise typer.BadParameter(f"table {small[0]} has fewer than 4 tasks: two for the run and two for the server")

    rows: list[dict[str, Any]] = []
    for table, seed in track([(table, seed) for table in loaded for seed in range(seeds)], "continual learning"):
        rows += _rows_of(table, run_of(table, tasks), settings, seed, again)
        with atomic(output / "continual.csv") as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    for table in loaded:
        title = f"{table.name}: {table.gaps}" if table.gaps else table.name
        Console().print(_summary([row for row in rows if row["table"] == table.name], title))


def _rows_of(
    table: tables.Table, protocol: Protocol, settings: RankerSettings, seed: int, again: int
) -> Iterator[dict[str, Any]]:
    """Run all recommenders with one seed; a row for each."""
    own = offline(table, protocol, seed)
    warmed = warmed_up(seed, settings, own)
    recommenders: dict[str, Recommender] = {name: kind(seed, settings, own, warmed) for name, kind in PAPER.items()}
    recommenders |= {name: taught(make(name, seed), own) for name in OTHERS}
    for name, recommender in recommenders.items():
        begin = time.perf_counter()
        outcomes, asked = lead(table, protocol, recommender, seed, again)
        seconds = time.perf_counter() - begin
        whole = report.RecommenderRun.of(table.name, name, seed, protocol, outcomes, seconds, table.missing)
        keys = {"table": table.name, "missing": table.missing, "recommender": name, "seed": seed}
        yield {**keys, "tasks": protocol.max_tasks, **whole.measures, **asdict(asked)}


def _summary(rows: Sequence[dict[str, Any]], title: str) -> Printed:
    """Means and standard errors over the seeds; differences are paired by seed.

    Forgotten is Rank% after the last task minus that right after learning, so a positive number is a loss.
    """
    columns = ("", "Rank%", f"- {FULL}", "gain", "first asked", "learned", "after last", "forgotten", "s/run")
    printed = Printed(*columns, title=title)

    def mean(name: str, of: Callable[[dict[str, Any]], float]) -> str:
        return str(report.Estimate.of([of(row) for row in rows if row["recommender"] == name]))

    full = {row["seed"]: row["rank_percent"] for row in rows if row["recommender"] == FULL}
    for name in dict.fromkeys(row["recommender"] for row in rows):
        printed.add_row(
            name,
            mean(name, lambda row: row["rank_percent"]),
            mean(name, lambda row: row["rank_percent"] - full[row["seed"]]),
            mean(name, lambda row: row["gain"]),
            mean(name, lambda row: row["first_asked"]),
            mean(name, lambda row: row["learned"]),
            mean(name, lambda row: row["after_last"]),
            mean(name, lambda row: row["after_last"] - row["learned"]),
            mean(name, lambda row: row["seconds"]),
        )
    return printed


if __name__ == "__main__":
    typer.run(main)
