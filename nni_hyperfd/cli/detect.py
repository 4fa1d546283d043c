"""`hyperfd detect`: runs a detector's folder on images, with onnxruntime, NumPy and Pillow only."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nni_hyperfd import files
from nni_hyperfd.cli.console import readable_errors

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}


def detect(
    folder: Annotated[Path, typer.Argument(help="A folder of `hyperfd best`, or its model.onnx.")],
    images: Annotated[
        list[Path], typer.Argument(help="Image files, folders of them, or annotation files (COCO) of data sets.")
    ],
    out: Annotated[Path | None, typer.Option(help="File for the results.", show_default="stdout")] = None,
    draw: Annotated[Path | None, typer.Option(help="Folder for the images with the faces drawn in.")] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Lowest score.", show_default="that of the best F1")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Number of threads.", show_default="one per core")] = None,
) -> None:
    """Find faces in images, and write them as COCO results.

    The image ids are those of an annotation file, as `hyperfd data relabel` needs them; the ids of other images count
    from 1.
    """
    with readable_errors(out or draw or folder, "detect"):
        from nni_hyperfd.detector import detecting
        from nni_hyperfd.detector.onnx_detector import OnnxDetector

        detector = OnnxDetector(folder, threads)
        lowest = detecting.default_threshold(folder) if threshold is None else threshold
        found = list(_images(images))
        results, seconds = detecting.detect(detector, found, lowest, draw)
        if out is None:
            json.dump(results, sys.stdout)
            print()
        else:
            files.write_json(out, results, indent=None)
    pace = f"{len(found) / seconds:.1f} images/s" if seconds else "no image"
    Console(stderr=True).print(
        f"{len(results)} faces of score {lowest:.3f} or more in {len(found)} images, {pace}",
        soft_wrap=True,
        highlight=False,
    )


def _images(given: list[Path]) -> Iterator[tuple[int, Path]]:
    """Id and file of each image."""
    number = 1
    for path in given:
        if path.suffix == ".json":
            from nni_hyperfd.detector import detecting

            yield from detecting.of_annotations(path)
            continue
        inside = (
            sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES) if path.is_dir() else [path]
        )
        if not inside:
            raise files.FolderError(f"{path}: no image in it; name a folder with {', '.join(sorted(_SUFFIXES))}")
        for file in inside:
            yield number, file
            number += 1
