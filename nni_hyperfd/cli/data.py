"""`hyperfd data ...`: prepare face data sets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

data = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Prepare face data sets.")


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
            table.add_row(kind, str(len(items)), Text(items[0], overflow="fold"))
        console.print(table)
    console.print(f"{out / REPORT} lists them all.", soft_wrap=True, highlight=False, markup=False)


@data.command()
def relabel(
    folder: Annotated[Path, typer.Argument(help="A converted data set.")],
    split: Annotated[str, typer.Argument(help="train, val or test.")],
    detections: Annotated[Path, typer.Argument(help="COCO results file of a detector on that split.")],
    iou: Annotated[float, typer.Option(min=0.01, max=1, help="Least overlap of a box and a detection.")] = 0.5,
    confidence: Annotated[float, typer.Option(min=0, max=1, help="Least score of a detection.")] = 0.5,
) -> None:
    """Put a detector's boxes in the place of poor annotations (AFLW, WIKI), with a list of every change."""
    from nni_hyperfd.datasets.convert.record import ConvertError
    from nni_hyperfd.datasets.convert.weak_labels import relabel as run

    try:
        changes = run(folder, split, detections, iou=iou, confidence=confidence)
    except ConvertError as error:
        _stop(str(error))
    except OSError as error:
        _stop(f"{error.filename or folder}: {error.strerror}; make room or correct it, and run the command again")
    counts = ", ".join(f"{len(items)} {kind}" for kind, items in changes.items())
    text = f"Boxes: {counts}. {folder / f'{split}.changes.json'} lists them all."
    Console().print(text, soft_wrap=True, highlight=False, markup=False)


@data.command()
def subsets(
    sources: Annotated[list[Path], typer.Argument(help="Data sets, as one.")],
    out: Annotated[Path, typer.Argument(help="A new folder, or one in which this command was interrupted.")],
    model: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE[,layer=TENSOR][,size=PX][,pixels=255|1|-1|imagenet]; may be repeated."),
    ] = None,
    smallest: Annotated[
        int | None, typer.Option(min=1, help="Least images of a subset.", show_default="5 % of all")
    ] = None,
    largest: Annotated[int | None, typer.Option(min=1, help="Most images of a subset.", show_default="half")] = None,
    balance: Annotated[
        float, typer.Option(min=0, max=1, help="Least share of each split in a subset, over its share of all images.")
    ] = 0.5,
    overlap: Annotated[
        float, typer.Option(min=0.01, max=1, help="Jaccard index from which a subset is a near-duplicate.")
    ] = 0.7,
    seed: Annotated[int, typer.Option(min=0, help="Of the clusterings.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Threads.", show_default="one per core")] = os.cpu_count() or 1,
) -> None:
    """Cut many subsets that differ from a few data sets: clusters of image features and of label statistics."""
    from nni_hyperfd.datasets.coco import AnnotationError
    from nni_hyperfd.datasets.subsets.errors import SubsetsError

    console = Console()

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    try:
        from nni_hyperfd.datasets.subsets.flow import build
        from nni_hyperfd.datasets.subsets.models import parse

        limits = {"smallest": smallest, "largest": largest, "balance": balance, "overlap": overlap}
        wanted = [parse(text) for text in model or ()]
        report = build(sources, out, wanted, **limits, seed=seed, workers=workers, say=say)
    except ModuleNotFoundError as error:
        _stop(f"{error.name} is not installed; `pip install 'nni-hyperfd[subsets]'` brings what this command needs.")
    except (AnnotationError, SubsetsError) as error:
        _stop(str(error))
    except OSError as error:
        _stop(f"{error.filename or out}: {error.strerror}; make room or correct it, and the same command continues")
    dropped = ", ".join(f"{count} {reason}" for reason, count in report["dropped"].items())
    say(f"Dropped: {dropped}. {out / 'subsets.csv'} and {out / 'spread.png'} show the others.")


def _stop(message: str) -> NoReturn:
    text = message.encode("utf-8", errors="backslashreplace").decode()
    Console(stderr=True).print(f"hyperfd: {text}", soft_wrap=True, highlight=False, markup=False)
    raise SystemExit(1)
