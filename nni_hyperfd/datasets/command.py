"""`hyperfd data ...`: prepare face data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

data = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Prepare face data sets.")


@data.callback()
def _group() -> None:
    """Keeps `convert` a command of its own."""


@data.command()
def convert(
    name: Annotated[str, typer.Argument(help="The layout of its annotations; a wrong name lists them all.")],
    source: Annotated[Path, typer.Argument(help="The folder with the unpacked data set.")],
    out: Annotated[Path, typer.Argument(help="A new folder, or one in which this command was interrupted.")],
    category: Annotated[
        list[str] | None, typer.Option(help="Category that counts as face, for coco, voc, yolo; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the 6 : 1 : 3 split.")] = 0,
    resplit: Annotated[bool, typer.Option("--resplit", help="Draw 6 : 1 : 3 although there are splits.")] = False,
) -> None:
    """Convert a face data set to COCO json, cleaned, split, with a report of what was dropped and why."""
    from nni_hyperfd.datasets.convert.conversion import REPORT
    from nni_hyperfd.datasets.convert.conversion import convert as run
    from nni_hyperfd.datasets.convert.record import ConvertError

    try:
        report = run(name, source, out, categories=category or (), seed=seed, resplit=resplit)
    except ConvertError as error:
        _stop(str(error))
    except OSError as error:
        _stop(f"{error.filename or out}: {error.strerror}; make room or correct it, and the same command continues")
    console = Console()
    table = Table("split", "images", "faces")
    for part, counts in report["splits"].items():
        table.add_row(part, str(counts["images"]), str(counts["faces"]))
    console.print(table)
    if report["changes"]:
        table = Table("dropped or changed", "number", "first")
        for kind, items in report["changes"].items():
            table.add_row(kind, str(len(items)), items[0])
        console.print(table)
    console.print(f"{out / REPORT} lists them all.", soft_wrap=True, highlight=False, markup=False)


def _stop(message: str) -> None:
    text = message.encode("utf-8", errors="backslashreplace").decode()
    Console(stderr=True).print(f"hyperfd: {text}", soft_wrap=True, highlight=False, markup=False)
    raise SystemExit(1)
