"""What continual learning is worth, and what is forgotten: the paper's recipe and its ablations on tables.

    python -m nni_hyperfd.benchmark.continual TABLE... --seeds 20 --output DIR

On the platform's own data sets the ranker is warmed up, they are the negatives of the triplets, and the transformation
of eq. 4 (docs/method.md) is fitted to them; --offline N takes so many where a table names none. Past tasks are asked
again right after they were learned from and after the last task, with the candidates that they had; nothing is learned
from asking again.
"""

from __future__ import annotations

import copy
import csv
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table as Printed

from nni_hyperfd.benchmark import metrics, report
from nni_hyperfd.benchmark.options import OfflineOption, RegimeOption, ServerOption, server_names
from nni_hyperfd.benchmark.protocol import Outcome, Protocol, ProtocolError, Turn, course, lead, pick_all, taught
from nni_hyperfd.benchmark.regime import Regime
from nni_hyperfd.benchmark.results import RecommenderRun
from nni_hyperfd.benchmark.tables import Table, TableError, load_all
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
"""Names of other recommenders that are shown beside it."""


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


def warmed_up(seed: int, settings: RankerSettings, own: Sequence[MeasuredDataset]) -> WarmUp | None:
    """Warm up once for all of `PAPER`.

    Args:
        seed: of the warm-up.
        settings: constants of the method.
        own: the platform's own data sets; without any, None is returned.
    """
    if not own:
        return None
    recommender = PaperHyperFD(seed, settings, own)
    recommender.start_task(own[0].task, own[0].candidates)
    if recommender.warmed is None:
        raise RuntimeError("The recommender was not warmed up on the data sets that it was given.")
    return recommender.warmed


def lead_and_ask_again(
    turns: Sequence[Turn], protocol: Protocol, recommender: Recommender, seed: int, again: int
) -> tuple[list[Outcome], AskedAgain]:
    """Lead a recommender through a run, and ask it again about the first tasks.

    Args:
        turns: of the run's tasks.
        protocol: how the run goes.
        recommender: a new one, which knows the platform's own data sets.
        seed: of the run.
        again: number of the first tasks that are asked again.

    Returns:
        The outcomes of the tasks, and how it did on the first ones when asked again.
    """
    outcomes, learned = [], []
    for turn, outcome in zip(turns, lead(recommender, turns, protocol, seed), strict=True):
        outcomes.append(outcome)
        if len(outcomes) <= again:
            learned.append(_rank_percent(recommender, turn, protocol, seed))
    last = [_rank_percent(recommender, turn, protocol, seed) for turn in turns[:again]]
    first = [outcome.rank_percent[-1] for outcome in outcomes[:again]]
    return outcomes, AskedAgain(*(float(np.mean(ranks)) for ranks in (first, learned, last)))


def _rank_percent(recommender: Recommender, turn: Turn, protocol: Protocol, seed: int) -> float:
    """Rank% of the picks of a copy, so that asking leaves no trace."""
    recommender = copy.deepcopy(recommender)
    recommender.start_task(turn.task, turn.candidates)
    picks = pick_all(recommender, turn.performance, protocol.budget)
    return float(metrics.rank_percent(turn.performance, picks, np.random.default_rng([seed, 1]))[-1])


def main(
    folders: Annotated[list[Path], typer.Argument(help="Folders of tables.", metavar="TABLE")],
    regime: RegimeOption = Regime.REAL,
    offline: OfflineOption = None,
    server: ServerOption = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many runs, with the seeds 0, 1, ...")] = 20,
    output: Annotated[Path, typer.Option(help="Folder for the CSV.")] = Path("continual"),
    tasks: Annotated[int, typer.Option(min=1, help="Tasks per run, at most.")] = 16,
    again: Annotated[int, typer.Option(min=1, help="How many of the first tasks are asked again.")] = 4,
    exploration: Annotated[float, typer.Option(min=0, max=1, help="Share of the budget drawn at random.")] = 0.5,
) -> None:
    """Run the paper's recipe, its ablations and two references; values per seed go to continual.csv."""
    settings = RankerSettings(exploration=exploration)
    try:
        protocol = Protocol(regime, offline, tasks)
        protocols = {table: protocol.on(table) for table in load_all(folders, server_names(server))}
        output.mkdir(parents=True, exist_ok=True)
    except (TableError, ProtocolError, OSError) as error:
        raise typer.BadParameter(str(error)) from None

    done: list[tuple[RecommenderRun, AskedAgain]] = []
    wanted = [(table, seed) for table in protocols for seed in range(seeds)]
    for table, seed in track(wanted, "continual learning"):
        done += _runs(table, protocols[table], settings, seed, again)
        _write(done, output / "continual.csv")
    for table, protocol in protocols.items():
        title = f"{table.name}, {seeds} seeds: {protocol}. {table.gaps}".strip()
        Console().print(_printed([one for one in done if one[0].table == table.name], title))


def _runs(
    table: Table, protocol: Protocol, settings: RankerSettings, seed: int, again: int
) -> Iterator[tuple[RecommenderRun, AskedAgain]]:
    """Run all recommenders with one seed."""
    known = course(table, protocol, seed)
    own, warmed = known.offline, warmed_up(seed, settings, known.offline)
    recommenders: dict[str, Recommender] = {name: kind(seed, settings, own, warmed) for name, kind in PAPER.items()}
    recommenders |= {name: taught(make(name, seed), own) for name in OTHERS}
    for name, recommender in recommenders.items():
        begin = time.perf_counter()
        outcomes, asked = lead_and_ask_again(known.turns, protocol, recommender, seed, again)
        seconds = time.perf_counter() - begin
        yield RecommenderRun(table.name, name, seed, protocol, tuple(outcomes), seconds, table.missing), asked


def _write(done: Sequence[tuple[RecommenderRun, AskedAgain]], path: Path) -> None:
    """Write a row per run."""
    rows: list[dict[str, object]] = []
    for run, asked in done:
        keys = {"table": run.table, "missing": run.missing, "recommender": run.recommender, "seed": run.seed}
        how = {"regime": run.protocol.regime.value, "offline": run.protocol.offline, "tasks": len(run.outcomes)}
        rows.append({**keys, **how, **report.means_of(run), **asdict(asked)})
    with atomic(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _printed(done: Sequence[tuple[RecommenderRun, AskedAgain]], title: str) -> Printed:
    """Means with standard errors over the seeds, of Rank% also over data sets; differences are paired.

    Forgotten is Rank% after the last task minus that right after learning, so a positive number is a loss.
    """
    columns = ("", "Rank%", f"- {FULL}", "gain", "first asked", "learned", "after last", "forgotten", "s/run")
    printed = Printed(*columns, title=f"{title} ± over seeds, ± over data sets")
    for one in report.summarised([run for run, _ in done], FULL):
        asked = [again for run, again in done if run.recommender == one.recommender]
        forgotten = [again.after_last - again.learned for again in asked]
        places = [[getattr(again, field.name) for again in asked] for field in fields(AskedAgain)]
        printed.add_row(
            one.recommender,
            one.measures["rank_percent"].both,
            one.differences["rank_percent"].both,
            str(one.measures["gain"]),
            *(str(report.Estimate.of(values)) for values in [*places, forgotten]),
            str(one.measures["seconds"]),
        )
    return printed


if __name__ == "__main__":
    typer.run(main)
