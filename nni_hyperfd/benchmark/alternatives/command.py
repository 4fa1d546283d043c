"""The package's recommenders beside other libraries' searches, all in the same runs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nni_hyperfd import recommenders
from nni_hyperfd.benchmark import alternatives, report, results
from nni_hyperfd.benchmark.options import (
    NoiseOption,
    OfflineOption,
    RegimeOption,
    ServerOption,
    listed,
    server_names,
)
from nni_hyperfd.benchmark.protocol import Protocol, ProtocolError
from nni_hyperfd.benchmark.regime import Regime
from nni_hyperfd.benchmark.tables import TableError, load_all
from nni_hyperfd.files import FolderError
from nni_hyperfd.recommenders import Recommender

OWN = ("random", "mean_rank", "knn", "hyperfd", "hyperfd_paper")
NAMES = (*OWN, *alternatives.NAMES)


def main(
    folders: Annotated[list[Path], typer.Argument(help="Folders of tables.", metavar="TABLE...")],
    regime: RegimeOption = Regime.REAL,
    offline: OfflineOption = None,
    server: ServerOption = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many runs, each with its own seed.")] = 20,
    first_seed: Annotated[int, typer.Option(min=0, help="The first run's seed; the next ones follow.")] = 0,
    budget: Annotated[int, typer.Option(min=1, help="Picks per task.")] = 4,
    noise: NoiseOption = None,
    only: Annotated[str, typer.Option(help=f"Names, separated by commas, of {', '.join(NAMES)}.")] = "",
    reference: Annotated[str, typer.Option(help="The recommender that the others are compared with.")] = "hyperfd",
    out: Annotated[Path, typer.Option(help="Folder for the results; runs that are there are kept.")] = Path(
        "alternatives"
    ),
) -> None:
    """Compare the package's recommenders with what a user would pick instead. Stopped, it goes on where it was."""
    names = listed(only) if only else list(NAMES)
    if unknown := [name for name in names if name not in NAMES]:
        raise typer.BadParameter(f"there is no {unknown[0]!r}; choose among {', '.join(NAMES)}")
    try:
        for name in names:
            made(name, 0, ())
        protocol = Protocol(regime, offline, budget=budget, noise=noise)
        tables = load_all(folders, server_names(server))
        wanted = [
            results.Wanted(table, protocol.on(table), name, partial(made, name, columns=table.columns), seed)
            for table in tables
            for seed in range(first_seed, first_seed + seeds)
            for name in names
        ]
        file, console = results.open_runs(out, tables), Console()
        runs = results.all_of(wanted, file, console)
    except alternatives.Unavailable as error:
        raise typer.BadParameter(f"{error} --only goes on without it.") from None
    except (TableError, ProtocolError, FolderError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    command = shlex.join(["python", "-m", "nni_hyperfd.benchmark.alternatives", *sys.argv[1:]])
    report.publish(sorted(runs, key=lambda run: NAMES.index(run.recommender)), tables, reference, command, out, console)


def made(name: str, seed: int, columns: Sequence[int]) -> Recommender:
    """Make a recommender of the package or an alternative; columns: of the table."""
    return recommenders.make(name, seed) if name in OWN else alternatives.make(name, seed, columns)
