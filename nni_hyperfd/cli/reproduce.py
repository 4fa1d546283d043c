"""`hyperfd reproduce`: runs, then one exhibit after another, then the page."""

from __future__ import annotations

import shlex
import time
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn


def reproduce(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Tables that `hyperfd table` made, one a space; the package's own by default.", metavar="[TABLE]..."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=2, help="Runs of each recommender; Figure 4 has --orders of them.")] = 20,
    orders: Annotated[int, typer.Option(min=2, help="Orders of arrival in Figure 4.")] = 50,
    processes: Annotated[int, typer.Option(min=1, help="Runs side by side, each on one thread.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder for runs, tables, figures and the page.")] = Path("reproduced"),
) -> None:
    """Make the paper's tables and figures from measured face data; stopped at any time, the same command goes on."""
    from nni_hyperfd.benchmark import lookup, measured, tables
    from nni_hyperfd.benchmark.reproduce import exhibits, page, runs

    console, began = Console(), time.monotonic()
    bar = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn(), console=console)
    try:
        by_space = {}
        for folder in (folder.resolve() for folder in folders or shipped()):
            if (kind := space_of(folder)) in by_space:
                raise tables.TableError(f"{by_space[kind][0]} and {folder} are both of the space {kind}; name one.")
            by_space[kind] = folder, tables.load(folder), measured.read_trials(folder / lookup.TRIALS)
        with bar:
            runs.run_all([folder for folder, *_ in by_space.values()], out, seeds, orders, processes, bar.track)
    except (tables.TableError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    ran = time.monotonic()
    found = runs.outcomes(out)
    parts = [
        exhibits.Part(kind, *known, found[found.table == known[0].name], runs.warm_ups(known[0], out))
        for kind, known in by_space.items()
    ]
    shown = list(exhibits.all_of(parts, seeds, orders, out))
    named = f" {shlex.join(map(str, folders))}" if folders else ""
    page.write(
        shown,
        command=f"hyperfd reproduce{named} --seeds {seeds} --orders {orders}",
        sizes=[f"{part.space}: {len(part.clients)} client data sets, {len(part.table.server)} of the server's,"
               f" {len(part.table.configurations)} configurations" for part in parts],
        gaps=[line for part in parts for line in part.gaps],
        seeds=seeds,
        path=out / "reproduced.html",
    )  # fmt: skip
    for one in shown:
        for line in one.says:
            console.print(f"{one.name}: {line}", soft_wrap=True, highlight=False, markup=False)
    took = f"{ran - began:.0f} s of runs, {time.monotonic() - ran:.0f} s of exhibits"
    console.print(f"{out / 'reproduced.html'}: {took}", soft_wrap=True, highlight=False, markup=False)


def space_of(folder: Path) -> str:
    """hpo or nas. Raises TableError for a table of no search space."""
    from nni_hyperfd.benchmark import tables

    space = tables.read_meta(folder).get("space")
    kind = str(space).split(" ")[0]
    if kind not in ("hpo", "nas"):
        raise tables.TableError(f"{folder} is of the space {space!r}; name tables that hyperfd table made, hpo or nas.")
    return kind


def shipped() -> list[Path]:
    """The tables that come with the package."""
    return sorted(Path(str(files("nni_hyperfd.benchmark"))).glob("faces_*"))
