"""`hyperfd data ...`: prepare face data sets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nni_hyperfd.cli.console import readable_errors, say, stop

data = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Prepare face data sets.")


@data.command()
def convert(
    name: Annotated[str, typer.Argument(help="Layout of its annotations; a wrong name lists them all.")],
    source: Annotated[Path, typer.Argument(help="The folder with the unpacked data set.")],
    out: Annotated[Path, typer.Argument(help="A new folder, or one in which this command was interrupted.")],
    category: Annotated[
        list[str] | None, typer.Option(help="Category that counts as a face, for coco, voc, yolo; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the 6 : 1 : 3 split.")] = 0,
    resplit: Annotated[
        bool, typer.Option("--resplit", help="Draw 6 : 1 : 3 even if there are official splits.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Go on although more than a tenth of the images is missing.")
    ] = False,
) -> None:
    """Convert a face data set to COCO json, cleaned, split, with a report of what was dropped and why."""
    with _one_line_errors(out):
        from nni_hyperfd.datasets.convert import conversion

        report = conversion.convert(
            name, source, out, categories=category or (), seed=seed, resplit=resplit, allow_missing=allow_missing
        )
    show_conversion(report, out)


def show_conversion(report: Mapping[str, Any], out: Path) -> None:
    """Print what a conversion has read, split, dropped and changed."""
    from nni_hyperfd.datasets.convert.conversion import REPORT
    from nni_hyperfd.datasets.validation import caution

    console = Console()
    table = Table("split", "images", "faces")
    for part, counts in report["splits"].items():
        table.add_row(part, str(counts["images"]), str(counts["faces"]))
    table.add_section()
    table.add_row("in the source", *(str(report["annotated"][key]) for key in ("images", "faces")))
    console.print(table)
    say(f"Splits: {report['rule']}.")
    if "val" in report["splits"] and (text := caution(report["splits"]["val"]["faces"])) is not None:
        say(f"Caution: {text}.")
    if report["changes"]:
        table = Table("dropped or changed", "number", "first")
        for kind, items in report["changes"].items():
            table.add_row(kind, str(len(items)), Text(items[0], overflow="fold"))
        console.print(table)
    say(f"{out / REPORT} lists them all.")


@data.command()
def relabel(
    folder: Annotated[Path, typer.Argument(help="A converted data set.")],
    split: Annotated[str, typer.Argument(help="train, val or test.")],
    detections: Annotated[Path, typer.Argument(help="COCO results file of a detector on that split.")],
    iou: Annotated[float, typer.Option(min=0.01, max=1, help="Smallest overlap of a box and a detection.")] = 0.5,
    confidence: Annotated[float, typer.Option(min=0, max=1, help="Smallest score of a detection.")] = 0.5,
) -> None:
    """Replace poor boxes (AFLW, WIKI) by those of a detector, with a list of every change."""
    with _one_line_errors(folder):
        from nni_hyperfd.datasets.convert import weak_labels

        changes = weak_labels.relabel(folder, split, detections, iou=iou, confidence=confidence)
    counts = ", ".join(f"{len(items)} {kind}" for kind, items in changes.items())
    say(f"Boxes: {counts}. {folder / f'{split}.changes.json'} lists them all.")


@data.command()
def subsets(
    sources: Annotated[list[Path], typer.Argument(help="Folders of data sets, which are joined.")],
    out: Annotated[Path, typer.Argument(help="A new folder, or one in which this command was interrupted.")],
    model: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE[,layer=TENSOR][,size=PX][,pixels=255|1|-1|imagenet]; may be repeated."),
    ] = None,
    smallest: Annotated[
        int | None, typer.Option(min=1, help="Smallest number of images in a subset.", show_default="5 % of all")
    ] = None,
    largest: Annotated[
        int | None, typer.Option(min=1, help="Largest number of images in a subset.", show_default="half")
    ] = None,
    balance: Annotated[
        float,
        typer.Option(min=0, max=1, help="Smallest share of each split in a subset, over its share of all images."),
    ] = 0.5,
    overlap: Annotated[
        float, typer.Option(min=0.01, max=1, help="Jaccard index from which a subset is a near-duplicate.")
    ] = 0.7,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the clusterings.")] = 0,
    workers: Annotated[
        int, typer.Option(min=1, help="Number of threads.", show_default="one per core")
    ] = os.cpu_count() or 1,
) -> None:
    """Make many different subsets of a few data sets: clusters by image features and by label statistics."""
    with _one_line_errors(out):
        from nni_hyperfd.datasets.subsets.flow import build
        from nni_hyperfd.datasets.subsets.networks import parse

        report = build(
            sources,
            out,
            [parse(text) for text in model or ()],
            smallest=smallest,
            largest=largest,
            balance=balance,
            overlap=overlap,
            seed=seed,
            workers=workers,
            say=say,
        )
    dropped = ", ".join(f"{count} {reason}" for reason, count in report["dropped"].items())
    say(f"Dropped: {dropped}. {out / 'subsets.csv'} and {out / 'spread.png'} show the others.")


@data.command()
def shift(
    source: Annotated[Path, typer.Argument(help="A data set.")],
    out: Annotated[Path, typer.Argument(help="A new folder, or one in which this command was interrupted.")],
    by: Annotated[
        list[str], typer.Option(help="masked, sketch, drawn, negative, sideways, upside_down; several, in this order.")
    ],
    seed: Annotated[int, typer.Option(min=0, help="Seed of colours and of who wears a mask.")] = 0,
) -> None:
    """Make a data set that the starting detector does not know of one that it does, for the warm-up."""
    with _one_line_errors(out):
        from nni_hyperfd.datasets import shifted

        report = shifted.shift(source, out, by, seed=seed)
    counts = ", ".join(f"{count} {split}" for split, count in report["images"].items())
    say(f"Images: {counts}. {out / 'contact_sheet.jpg'} shows some.")


@contextmanager
def _one_line_errors(folder: Path) -> Iterator[None]:
    """End the command with one line on stderr for an error that its user can correct.

    Args:
        folder: what is named when the system does not say which file it could not use.
    """
    with readable_errors(folder, "subsets"):
        from nni_hyperfd.datasets.coco import AnnotationError
        from nni_hyperfd.datasets.convert.record import ConvertError
        from nni_hyperfd.datasets.shifted import ShiftError
        from nni_hyperfd.datasets.subsets.errors import SubsetsError
        from nni_hyperfd.files import FolderError

        try:
            yield
        except (AnnotationError, ConvertError, ShiftError, SubsetsError, FolderError) as error:
            stop(str(error))
