"""`hyperfd reproduce`: all runs, then one exhibit after another, then the page."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from nni_hyperfd.benchmark.options import OfflineOption, RegimeOption, ServerOption, server_names
from nni_hyperfd.benchmark.regime import Regime

if TYPE_CHECKING:
    from nni_hyperfd.benchmark.measured import MeasuredTrial
    from nni_hyperfd.benchmark.reproduce.exhibits import Exhibit, Part
    from nni_hyperfd.benchmark.reproduce.plan import Setting

    Known: TypeAlias = tuple[Setting, list[MeasuredTrial]]
    """A table with how its runs go, and the trials behind it."""


def reproduce(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Tables that `hyperfd table` made, one a space; the package's own by default.", metavar="[TABLE]..."
        ),
    ] = None,
    regime: RegimeOption = Regime.REAL,
    offline: OfflineOption = None,
    server: ServerOption = None,
    seeds: Annotated[int, typer.Option(min=2, help="Runs of each recommender; Figure 4 has --orders of them.")] = 20,
    orders: Annotated[int, typer.Option(min=2, help="Orders of arrival in Figure 4.")] = 50,
    processes: Annotated[int, typer.Option(min=1, help="Runs side by side, each on one thread.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder for runs, tables, figures and the page.")] = Path("reproduced"),
) -> None:
    """Make the paper's tables and figures from measured face data; stopped at any time, the same command goes on."""
    from nni_hyperfd.benchmark.protocol import ProtocolError
    from nni_hyperfd.benchmark.reproduce import exhibits, plan, runs
    from nni_hyperfd.benchmark.tables import TableError
    from nni_hyperfd.files import FolderError

    console, began = Console(), time.monotonic()
    bar = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn(), console=console)
    try:
        wanted = [folder.resolve() for folder in folders or shipped()]
        kinds = _kinds(wanted)
        settings = plan.settings(kinds.values(), regime, offline, server_names(server))
        by_space = dict(zip(kinds, map(_known, settings), strict=True))
        with bar:
            runs.run_all([one for one, _ in by_space.values()], out, seeds, orders, processes, bar.track)
        parts = _parts(by_space, out)
    except (TableError, ProtocolError, FolderError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    ran = time.monotonic()
    shown = list(exhibits.all_of(parts, seeds, orders, out))
    named = f" {shlex.join(map(str, folders))}" if folders else ""
    how = f" --regime {regime.value}" + (f" --offline {offline}" if offline is not None else "")
    how += f" --server {shlex.quote(server)}" if server is not None else ""
    command = f"hyperfd reproduce{named}{how} --seeds {seeds} --orders {orders}"
    _write_page(shown, parts, command, seeds, out / "reproduced.html")
    for one in shown:
        for line in one.says:
            console.print(f"{one.name}: {line}", soft_wrap=True, highlight=False, markup=False)
    took = f"{ran - began:.0f} s of runs, {time.monotonic() - ran:.0f} s of exhibits"
    console.print(f"{out / 'reproduced.html'}: {took}", soft_wrap=True, highlight=False, markup=False)


def space_of(folder: Path) -> str:
    """The space of a table, hpo or nas.

    Raises:
        TableError: the table is of neither.
    """
    from nni_hyperfd.benchmark import tables

    space = tables.read_meta(folder).get("space")
    kind = str(space).split(" ")[0]
    if kind not in ("hpo", "nas"):
        raise tables.TableError(f"{folder} is of the space {space!r}; name tables that hyperfd table made, hpo or nas.")
    return kind


def shipped() -> list[Path]:
    """Folders of the tables that come with the package."""
    return sorted(Path(str(files("nni_hyperfd.benchmark"))).glob("faces_*"))


def _kinds(folders: Iterable[Path]) -> dict[str, Path]:
    """The tables' folders by space.

    Raises:
        TableError: two are of the same space, or one is of another.
    """
    from nni_hyperfd.benchmark.tables import TableError

    kinds: dict[str, Path] = {}
    for folder in folders:
        if (kind := space_of(folder)) in kinds:
            raise TableError(f"{kinds[kind]} and {folder} are both of the space {kind}; name one.")
        kinds[kind] = folder
    return kinds


def _known(setting: Setting) -> Known:
    """The table with the trials behind it."""
    from nni_hyperfd.benchmark import lookup, measured

    return setting, measured.read_trials(setting.folder / lookup.TRIALS)


def _parts(by_space: Mapping[str, Known], out: Path) -> list[Part]:
    """What is known of each space when all runs have been done."""
    from nni_hyperfd.benchmark.reproduce import exhibits, runs
    from nni_hyperfd.benchmark.reproduce.warm_ups import warm_ups

    found = runs.outcomes(out)
    return [
        exhibits.Part(kind, one, trials, found[found.table == one.folder.name], warm_ups(one, out))
        for kind, (one, trials) in by_space.items()
    ]


def _write_page(shown: Sequence[Exhibit], parts: Sequence[Part], command: str, seeds: int, path: Path) -> None:
    """Write the page, with the sizes and gaps of the tables."""
    from nni_hyperfd.benchmark.reproduce import page

    sizes = [
        f"{part.label}: {len(part.clients)} client data sets, {len(part.table.server)} of the server's,"
        f" {len(part.table.configurations)} configurations"
        for part in parts
    ]
    page.write(shown, command, sizes, [line for part in parts for line in part.gaps], seeds, path)
