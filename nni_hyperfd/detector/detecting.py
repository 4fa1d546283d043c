"""Detection on image files and annotated splits, as COCO results and drawn images. Needs no torch."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import ImageDraw
from PIL.Image import Image

from nni_hyperfd import files
from nni_hyperfd.detector.onnx_detector import FIGURES, OnnxDetector, as_records, open_image
from nni_hyperfd.files import FolderError

_COLOUR = (0, 200, 80)


def default_threshold(folder: Path) -> float:
    """The threshold that a detector's folder was given, 0.5 where only its ONNX file is."""
    path = (folder if folder.is_dir() else folder.parent) / FIGURES
    try:
        return float(json.loads(path.read_text())["chosen"]["score"]) if path.is_file() else 0.5
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FolderError(f"{path}: it cannot be read ({error}); name a --threshold") from error


def detect(
    detector: OnnxDetector, images: Iterable[tuple[int, Path]], threshold: float, drawn: Path | None = None
) -> tuple[list[dict[str, Any]], float]:
    """Find the faces of image files.

    Args:
        detector: the detector.
        images: id and file of each image.
        threshold: lowest score.
        drawn: folder for copies of the images with the faces drawn in, named by id and name; None for none.

    Returns:
        COCO results with the key `file_name` besides, and the seconds that detection took, without files.

    Raises:
        FolderError: a file cannot be read as an image.
    """
    results, seconds = [], 0.0
    for number, path in images:
        image = open_image(path)
        begin = time.perf_counter()
        boxes, scores = detector.detect(image)
        seconds += time.perf_counter() - begin
        shown = scores >= threshold
        records = as_records(number, boxes[shown], scores[shown])
        results += [{**record, "file_name": path.name} for record in records]
        if drawn is not None:
            draw(image, records)
            with files.atomic(drawn / f"{number:06d}_{path.stem}.jpg") as partial:
                image.save(partial, quality=90)
    return results, seconds


def draw(image: Image, records: list[dict[str, Any]]) -> None:
    """Draw detections with their scores into an image."""
    pen = ImageDraw.Draw(image)
    width = max(2, round(min(image.size) / 200))
    for record in records:
        x, y, across, down = record["bbox"]
        pen.rectangle((x, y, x + across, y + down), outline=_COLOUR, width=width)
        pen.text((x + width, y + width), f"{record['score']:.2f}", fill=_COLOUR)


def of_annotations(path: Path) -> Iterator[tuple[int, Path]]:
    """Id and file of each image of an annotation file, `FOLDER/SPLIT.json`.

    Raises:
        FolderError: it is no COCO file, or an image is missing.
    """
    try:
        images = [(record["id"], str(record["file_name"])) for record in json.loads(path.read_text())["images"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FolderError(f"{path}: it cannot be read as COCO annotations ({error})") from error
    for number, name in images:
        places = (path.parent / "images" / name, path.parent / name, path.parent / path.stem / name)
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            raise FolderError(f"{path}: image {number} has no file {name}; put it into {path.parent / 'images'}")
        yield number, file
