"""Data sets far from what a detector was trained on, made from near ones.

A platform's own data sets are often those that its starting detector was trained on. On them the configurations that
change least are best, and on a data owner's, where that detector finds little, those that learn fast. So the platform
needs some of the second kind, too: its own images, shifted until the detector does not know them. How far shifts go is
in nni_hyperfd/benchmark/measured_hpo/README.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from nni_hyperfd.datasets import coco, resumable
from nni_hyperfd.datasets.contact_sheet import draw_contact_sheet
from nni_hyperfd.datasets.images import Image, read_image, save_image
from nni_hyperfd.files import write_json

REPORT = "report.json"
"""The report's file name."""
_SETTINGS = "settings.json"
_UNMASKED = 0.15  # share of the faces that wear no mask
_CLOTHS = ((230, 230, 230), (180, 120, 60), (30, 30, 30), (200, 200, 120))  # colours (BGR) of masks
_MASK = ((0.02, 0.5), (0.5, 0.42), (0.98, 0.5), (0.9, 0.85), (0.5, 1.0), (0.1, 0.85))  # corners, in shares of the box

Points = NDArray[np.float64]
"""(n, 2), x and y in px."""
Paint = Callable[[Image, NDArray[np.float64], Generator], Image]
"""Makes another image of one (height, width, 3), given its faces' boxes (n, 4; x, y, width, height in px)."""


class ShiftError(ValueError):
    """A data set cannot be shifted; the message names what is wrong and what to do."""


@dataclass(frozen=True)
class Shift:
    """One way to another domain.

    Attributes:
        paint: what it makes of an image.
        move: where points of an image are then, given its width and height (px).
    """

    paint: Paint
    move: Callable[[Points, int, int], Points] = lambda points, width, height: points


def _negative(image: Image, boxes: NDArray[np.float64], rng: Generator) -> Image:
    return 255 - image


def _sketch(image: Image, boxes: NDArray[np.float64], rng: Generator) -> Image:
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    around = cv2.GaussianBlur(grey, (0, 0), 6)
    return np.asarray(cv2.cvtColor(cv2.divide(grey, around, scale=256), cv2.COLOR_GRAY2BGR), np.uint8)


def _drawn(image: Image, boxes: NDArray[np.float64], rng: Generator) -> Image:
    smooth = cv2.bilateralFilter(cv2.bilateralFilter(image, 7, 40, 7), 7, 40, 7)
    hsv = cv2.cvtColor(np.asarray(smooth // 32 * 32 + 16, np.uint8), cv2.COLOR_BGR2HSV).astype(np.float64)
    hsv[..., 0] = (hsv[..., 0] + rng.uniform(-15, 15)) % 180
    hsv[..., 1] = np.minimum(1.8 * hsv[..., 1], 255)
    flat = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2BGR)
    grey = cv2.medianBlur(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), 5)
    outlines = cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, 9, 4)
    return np.asarray(cv2.bitwise_and(flat, flat, mask=outlines), np.uint8)


def _masked(image: Image, boxes: NDArray[np.float64], rng: Generator) -> Image:
    masked: Image = image.copy()
    for box in boxes[rng.uniform(size=len(boxes)) >= _UNMASKED]:
        colour = np.clip(rng.choice(_CLOTHS) + rng.integers(-20, 20, 3), 0, 255)
        corners = (box[:2] + np.array(_MASK) * box[2:]).astype(np.int32)
        cv2.fillPoly(masked, [corners], [int(value) for value in colour], cv2.LINE_AA)
    return masked


SHIFTS: Mapping[str, Shift] = {
    "masked": Shift(_masked),
    "sketch": Shift(_sketch),
    "drawn": Shift(_drawn),
    "negative": Shift(_negative),
    "sideways": Shift(
        lambda image, boxes, rng: np.ascontiguousarray(np.rot90(image)),
        lambda points, width, height: np.stack([points[:, 1], width - points[:, 0]], axis=1),
    ),
    "upside_down": Shift(
        lambda image, boxes, rng: np.ascontiguousarray(np.rot90(image, 2)),
        lambda points, width, height: np.array([width, height]) - points,
    ),
}
"""The shifts by name."""


def shift(source: Path, out: Path, names: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """Make a shifted data set of another, with the same splits.

    Args:
        source: folder of a data set with `train.json` and `val.json`, and `test.json` if it has one.
        out: a new folder, or one in which the same run was interrupted.
        names: of `SHIFTS`, at least one, which are applied in this order.
        seed: of colours and of who wears a mask.

    Returns:
        The report: `settings`, and the numbers of `images` by split.

    Raises:
        ShiftError: there is no such shift, or none is named.
        AnnotationError: the source cannot be used.
        FolderError: `out` holds a finished run, one with other settings, or something else.
        OSError: a file cannot be read or written.
    """
    if not names:
        raise ShiftError(f"name a shift: {', '.join(SHIFTS)}.")
    if unknown := [name for name in names if name not in SHIFTS]:
        raise ShiftError(f"there is no shift {unknown[0]!r}; use {', '.join(SHIFTS)}.")
    splits = [coco.load(source, split) for split in ("train", "val")]
    if (source / "test.json").exists():
        splits.append(coco.load(source, "test"))
    fingerprints = {split.split: split.fingerprint() for split in splits}
    settings = {"source": fingerprints, "shifts": list(names), "seed": seed}
    resumable.check(out / _SETTINGS, out / REPORT, settings)
    resumable.begin(out / _SETTINGS, settings)
    (out / "images").mkdir(exist_ok=True)
    shifted = [_shift_split(split, out, [SHIFTS[name] for name in names], seed) for split in splits]
    draw_contact_sheet(shifted[0], out / "contact_sheet.jpg")
    report = {"settings": settings, "images": {split.split: split.num_images for split in shifted}}
    write_json(out / REPORT, report)
    return report


def _shift_split(split: coco.CocoSplit, out: Path, shifts: Sequence[Shift], seed: int) -> coco.CocoSplit:
    """Write the images of a split, and then its annotations."""
    faces: dict[int, list[coco.Record]] = {image["id"]: [] for image in split.images}
    for annotation in split.annotations:
        faces[annotation["image_id"]].append(annotation)
    images: list[coco.Record] = []
    annotations: list[coco.Record] = []
    for image in split.images:
        path = split.image_path(image)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rng = np.random.default_rng([seed, int(digest[:16], 16)])
        picture, moved = _shift_image(read_image(path), faces[image["id"]], shifts, rng)
        height, width = picture.shape[:2]
        save_image(out / "images" / f"{digest}.jpg", picture)
        images.append({**image, "file_name": f"{digest}.jpg", "width": width, "height": height})
        annotations += moved
    content = {"images": images, "annotations": annotations, "categories": [split.category]}
    write_json(out / f"{split.split}.json", content, indent=None)
    return coco.CocoSplit(out, split.split, split.category, images, annotations)


def _shift_image(
    image: Image, faces: Sequence[coco.Record], shifts: Sequence[Shift], rng: Generator
) -> tuple[Image, list[coco.Record]]:
    """An image and its annotations after all shifts."""
    corners = np.array([face["bbox"] for face in faces], np.float64).reshape(-1, 2, 2)
    corners[:, 1] += corners[:, 0]
    landmarks = [np.array(face.get("keypoints", ()), np.float64).reshape(-1, 3) for face in faces]
    for each in shifts:
        height, width = image.shape[:2]
        boxes = np.concatenate([corners[:, 0], corners[:, 1] - corners[:, 0]], axis=1)
        image = each.paint(image, boxes, rng)
        moved = each.move(corners.reshape(-1, 2), width, height).reshape(-1, 2, 2)
        corners = np.stack([moved.min(axis=1), moved.max(axis=1)], axis=1)
        for points in landmarks:
            known = points[:, 2] > 0
            points[known, :2] = each.move(points[known, :2], width, height)
    result = []
    for face, (low, high), points in zip(faces, corners, landmarks, strict=True):
        keypoints = {"keypoints": points.ravel().tolist()} if len(points) else {}
        result.append({**face, "bbox": [*low.tolist(), *(high - low).tolist()], **keypoints})
    return image, result
