"""`hyperfd benchmark`: recommenders on tables, under the online protocol."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table as Printed

_DRAWN_PICKS = 10


def benchmark(
    tables: Annotated[list[Path], typer.Argument(help="Folders of tables.")],
    recommenders: Annotated[str, typer.Option(help="Names, separated by commas.")] = "random,mean_rank,knn,hyperfd",
    seeds: Annotated[int, typer.Option(min=1, help="How many runs, with the seeds 0, 1, ...")] = 20,
    budget: Annotated[int, typer.Option(min=1, help="Picks per task.")] = 4,
    candidates: Annotated[int, typer.Option(min=2, help="Candidates per task, drawn afresh.")] = 200,
    reveal: Annotated[str, typer.Option(help="What is known after a task: all, or how many beside the picks.")] = "all",
    tasks: Annotated[int, typer.Option(min=2, help="Tasks per run, at most.")] = 16,
    meta_features: Annotated[bool, typer.Option(help="Whether recommenders see the tasks' meta-features.")] = True,
    figure: Annotated[bool, typer.Option(help="Also run with 10 picks, and draw Rank% against picks.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the CSV and the figure.")] = Path("benchmark"),
) -> None:
    """Compare recommenders on tables of real measurements."""
    from nni_hyperfd.benchmark import report
    from nni_hyperfd.benchmark import tables as lookup
    from nni_hyperfd.benchmark.protocol import Protocol, run
    from nni_hyperfd.recommenders import NAMES, make

    names = [name.strip() for name in recommenders.split(",")]
    if unknown := [name for name in names if name not in NAMES]:
        raise typer.BadParameter(f"there is no {unknown[0]!r}; choose among {', '.join(NAMES)}")
    if reveal != "all" and not reveal.isdecimal():
        raise typer.BadParameter(f"--reveal takes all or a number, not {reveal!r}")
    protocol = Protocol(tasks, candidates, budget, None if reveal == "all" else int(reveal), meta_features)
    longer = replace(protocol, budget=_DRAWN_PICKS)
    try:
        loaded = [lookup.load(folder) for folder in tables]
        out.mkdir(parents=True, exist_ok=True)
    except (lookup.TableError, OSError) as error:
        raise typer.BadParameter(str(error)) from None

    runs, drawn = [], []
    jobs = [(table, name, seed) for table in loaded for name in names for seed in range(seeds)]
    console = Console()
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn(), console=console) as bar:
        progress = bar.add_task("", total=len(jobs) * (1 + figure))
        for table, name, seed in jobs:
            bar.update(progress, description=f"{table.name}, {name}")
            for kept, how in [(runs, protocol), (drawn, longer)][: 1 + figure]:
                begin = time.perf_counter()
                outcomes = list(run(table, how, lambda seed, name=name: make(name, seed), seed))
                kept.append(report.Run(table.name, name, seed, outcomes, time.perf_counter() - begin))
                bar.advance(progress)
            report.write_csv(runs, out / "runs.csv")
    if figure:
        report.draw(drawn, out / "rank_against_picks.png")
    for table in loaded:
        console.print(_summary([run for run in runs if run.table == table.name], table.name, names))
    console.print(f"Values per seed: {out / 'runs.csv'}")


def _summary(runs: list, title: str, names: list[str]) -> Printed:
    from nni_hyperfd.benchmark import report

    printed = Printed("recommender", "Rank%", f"- {report.REFERENCE}", "first half", "second half", "gain", "NDCG",
                      "regret", "s/run", title=title)  # fmt: skip
    reference = [run for run in runs if run.recommender == report.REFERENCE]
    for name in names:
        own = [run for run in runs if run.recommender == name]
        difference = report.paired_difference(own, reference, "rank_percent") if reference else "-"
        columns = ("first_half", "second_half", "gain", "ndcg", "regret")
        values = [str(report.estimate(own, column)) for column in columns]
        printed.add_row(name, str(report.estimate(own, "rank_percent")), str(difference), *values,
                        f"{report.estimate(own, 'seconds').mean:.2f}")  # fmt: skip
    return printed
