"""Contact sheets: images of a data set with their annotations, in one picture."""

from __future__ import annotations

import math
import os
from pathlib import Path

import cv2
import numpy as np

from nni_hyperfd.datasets import coco
from nni_hyperfd.datasets.images import Image, read_image, save_image


def write_contact_sheet(
    folder: str | os.PathLike[str],
    split: str,
    path: str | os.PathLike[str],
    *,
    count: int = 24,
    columns: int = 6,
    cell: int = 240,
) -> None:
    """Show images of a split with their boxes and landmarks in one picture.

    Boxes are green; those that are ignored are grey.

    Args:
        folder: the data set's folder.
        split: name of the split.
        path: the file to write, `.jpg` or `.png`.
        count: maximum number of images, which are evenly spread over the split.
        columns: images in a row.
        cell: width and height in px that an image may take.

    Raises:
        AnnotationError: the split cannot be used.
        ValueError: the file has another suffix.
    """
    draw_contact_sheet(coco.load(folder, split), path, count=count, columns=columns, cell=cell)


def draw_contact_sheet(
    data: coco.CocoSplit, path: str | os.PathLike[str], *, count: int = 24, columns: int = 6, cell: int = 240
) -> None:
    """Do what `write_contact_sheet` does, for a split that is loaded already."""
    chosen = [data.images[index] for index in np.unique(np.linspace(0, data.num_images - 1, count).astype(int))]
    rows = math.ceil(len(chosen) / columns)
    sheet = np.full((rows * cell, columns * cell, 3), 255, np.uint8)
    for position, record in enumerate(chosen):
        annotations = [annotation for annotation in data.annotations if annotation["image_id"] == record["id"]]
        image = _annotated(read_image(data.image_path(record)), annotations, cell - 4)
        top, left = (2 + cell * index for index in divmod(position, columns))
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    save_image(Path(path), sheet)


def _annotated(image: Image, annotations: list[coco.Record], side: int) -> Image:
    """The image, scaled so that its longer side has `side` px, with its boxes and landmarks."""
    scale = side / max(image.shape[:2])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    for annotation in annotations:
        x, y, width, height = (value * scale for value in annotation["bbox"])
        colour = (0, 220, 0) if coco.is_usable(annotation) else (150, 150, 150)
        cv2.rectangle(image, (round(x), round(y)), (round(x + width), round(y + height)), colour, 1)
        for u, v, visible in np.reshape(annotation.get("keypoints", []), (-1, 3)):
            if visible:
                cv2.circle(image, (round(u * scale), round(v * scale)), 2, (0, 0, 255), -1)
    return image
