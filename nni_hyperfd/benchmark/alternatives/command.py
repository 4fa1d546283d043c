"""The package's recommenders beside other libraries' searches, all in the same runs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
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
from nni_hyperfd.benchmark.protocol import Protocol, turns
from nni_hyperfd.benchmark.report import RecommenderRun
from nni_hyperfd.benchmark.server import timed_run
from nni_hyperfd.files import FolderError, RowFile
from nni_hyperfd.recommenders import Recommender

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
        loaded = tables.load_all(folders)
        file = finished.open_runs(out, loaded, protocol)
        runs = finished.read(file, protocol)
    except alternatives.Unavailable as error:
        raise typer.BadParameter(f"{error} --only goes on without it.") from None
    except (tables.TableError, FolderError, OSError) as error:
        raise typer.BadParameter(str(error)) from None

    console = Console()
    wanted = list(itertools.product(loaded, range(seeds), names))
    runs += _missing(wanted, runs, protocol, file, console)
    order = {name: place for place, name in enumerate(NAMES)}
    keys = {(table.name, seed, name) for table, seed, name in wanted}
    runs = [run for run in runs if _key(run) in keys]
    summaries = report.summarised(sorted(runs, key=lambda run: order[run.recommender]), REFERENCE)
    report.write_summary(summaries, out / "summary.csv", REFERENCE)
    for table in loaded:
        console.print(printed(table, protocol, seeds, [one for one in summaries if one.table == table.name]))
        if table.gaps:
            console.print(f"{table.name}: {table.gaps}")
    console.print(f"Per seed: {out / finished.RUNS}; means and differences: {out / 'summary.csv'}")


def made(name: str, seed: int, columns: tuple[int, ...]) -> Recommender:
    """Make a recommender of the package or an alternative; columns: of the table."""
    return recommenders.make(name, seed) if name in OWN else alternatives.make(name, seed, columns)


def _missing(
    wanted: Sequence[tuple[tables.Table, int, str]],
    there: Sequence[RecommenderRun],
    protocol: Protocol,
    file: RowFile,
    console: Console,
) -> list[RecommenderRun]:
    """Do the runs (table, seed, name) that are not there yet, with a progress bar, and add their rows to the file."""
    known = {_key(run) for run in there}
    done = []
    bar = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn(), console=console)
    with bar:
        progress = bar.add_task("", total=len(wanted))
        for table, seed, name in wanted:
            bar.update(progress, description=f"{table.name}, seed {seed}, {name}")
            if (table.name, seed, name) not in known:
                done.append(timed_run(table, protocol, name, partial(made, name, columns=table.columns), seed))
                file.add(done[-1].row)
            bar.advance(progress)
    return done


def _key(run: RecommenderRun) -> tuple[str, int, str]:
    """Table, seed and recommender of a run."""
    return run.table, run.seed, run.recommender


def printed(table: tables.Table, protocol: Protocol, seeds: int, summaries: Sequence[report.Summary]) -> Printed:
    """What fits into 80 columns. Seconds are those of a whole run, with learning, and the same per pick."""
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
    """Number of picks of a run."""
    return sum(min(protocol.budget, len(turn.indices)) for turn in turns(table, protocol, seed)[protocol.given :])
