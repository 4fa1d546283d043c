"""The package's recommenders beside other libraries' searches, all led through the same runs."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Column
from rich.table import Table as Printed

from nni_hyperfd import recommenders
from nni_hyperfd.benchmark import alternatives, report, tables
from nni_hyperfd.benchmark.alternatives import finished
from nni_hyperfd.benchmark.protocol import Protocol, run, turns
from nni_hyperfd.benchmark.server import informed
from nni_hyperfd.recommenders.base import Recommender

REFERENCE = "hyperfd"
OWN = ("random", "mean_rank", "knn", "hyperfd", "hyperfd_paper")
NAMES = (*OWN, *alternatives.NAMES)


def main(
    folders: Annotated[list[Path], typer.Argument(help="Folders of tables.", metavar="TABLE...")],
    seeds: Annotated[int, typer.Option(min=1, help="How many runs, each with its own seed.")] = 20,
    budget: Annotated[int, typer.Option(min=1, help="Picks per task.")] = 4,
    only: Annotated[str, typer.Option(help=f"Names, separated by commas, of {', '.join(NAMES)}.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for the CSVs; runs that are there are kept.")] = Path(
        "alternatives"
    ),
) -> None:
    """Compare the package's recommenders with what a user would pick instead. Stopped, it goes on where it was."""
    names = list(dict.fromkeys(part.strip() for part in only.split(","))) if only else list(NAMES)
    if unknown := [name for name in names if name not in NAMES]:
        raise typer.BadParameter(f"there is no {unknown[0]!r}; choose among {', '.join(NAMES)}")
    protocol = Protocol(budget=budget)
    try:
        for name in names:
            made(name, 0, ())
        loaded = [tables.load(folder) for folder in folders]
        if len({table.name for table in loaded}) < len(loaded):
            raise tables.TableError(f"two tables have the same name: {', '.join(table.name for table in loaded)}")
        out.mkdir(parents=True, exist_ok=True)
        finished.claim(out, loaded, protocol)
        runs = finished.read(out, protocol)
    except alternatives.Unavailable as error:
        raise typer.BadParameter(f"{error} --only goes on without it.") from None
    except (tables.TableError, finished.FinishedError, OSError) as error:
        raise typer.BadParameter(str(error)) from None

    jobs = list(itertools.product(loaded, range(seeds), names))
    there = {(one.table, one.seed, one.recommender) for one in runs}
    console = Console()
    bar = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn(), console=console)
    with bar, report.runs_csv(out / finished.RUNS, append=bool(runs)) as write:
        progress = bar.add_task("", total=len(jobs))
        for table, seed, name in jobs:
            bar.update(progress, description=f"{table.name}, seed {seed}, {name}")
            if (table.name, seed, name) not in there:
                begin = time.perf_counter()
                recommender = informed(made(name, seed, table.columns), table, protocol, seed)
                outcomes = list(run(table, protocol, lambda _, own=recommender: own, seed))
                seconds = time.perf_counter() - begin
                runs.append(report.Run(table.name, name, seed, protocol, outcomes, seconds, table.missing))
                write(runs[-1])
            bar.advance(progress)

    order = {name: place for place, name in enumerate(NAMES)}
    wanted = {(table.name, seed, name) for table, seed, name in jobs}
    runs = [one for one in runs if (one.table, one.seed, one.recommender) in wanted]
    summaries = report.summarised(sorted(runs, key=lambda one: order[one.recommender]), REFERENCE)
    report.write_summary(summaries, out / "summary.csv", REFERENCE)
    for table in loaded:
        console.print(printed(table, protocol, seeds, [one for one in summaries if one.table == table.name]))
        if table.gaps:
            console.print(f"{table.name}: {table.gaps}")
    console.print(f"Per seed: {out / finished.RUNS}; means and differences: {out / 'summary.csv'}")


def made(name: str, seed: int, columns: tuple[int, ...]) -> Recommender:
    return recommenders.make(name, seed) if name in OWN else alternatives.make(name, seed, columns)


def printed(table: tables.Table, protocol: Protocol, seeds: int, summaries: list[report.Summary]) -> Printed:
    """What fits into 80 columns. Seconds are those of a whole run, learning and all, by its picks."""
    picks = np.mean([_picks(table, protocol, seed) for seed in range(seeds)])
    columns = ("recommender", "Rank%", f"- {REFERENCE}", "s per pick", "s per run")
    title = f"{table.name}, budget {protocol.budget}, {seeds} seeds"
    result = Printed(*(Column(name, no_wrap=True) for name in columns), title=title, box=SIMPLE, padding=(0, 1, 0, 0))
    for one in summaries:
        seconds = one.measures["seconds"].mean
        difference = str(one.differences.get("rank_percent", ""))
        rank = str(one.measures["rank_percent"])
        result.add_row(one.recommender, rank, difference, f"{seconds / picks:.3g}", f"{seconds:.3g}")
    return result


def _picks(table: tables.Table, protocol: Protocol, seed: int) -> int:
    return sum(min(protocol.budget, len(turn.indices)) for turn in turns(table, protocol, seed)[protocol.given :])
