"""Weak labels for data sets whose boxes are poor, such as AFLW and WIKI (appendix B.2 of the HyperFD paper).

A pretrained detector's boxes are matched to the annotated ones. An annotated box with a match is replaced by the
detector's; a confident detection without a match becomes a face; an annotated box without a match is kept, and listed
for inspection.
"""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from nni_hyperfd.datasets.coco import Record
from nni_hyperfd.datasets.convert.cleaning import clip
from nni_hyperfd.datasets.convert.record import ConvertError
from nni_hyperfd.datasets.convert.sources import read_json
from nni_hyperfd.files import write_json

_ORIGINALS = "annotated"  # folder of the annotations before relabelling

Boxes = NDArray[np.float64]
"""(n, 4): x, y, width, height in pixels."""


def overlaps(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """Compute the intersection over union (n, m) of boxes (n, 4) and (m, 4)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum((first[:, :2] + first[:, 2:])[:, None], (second[:, :2] + second[:, 2:])[None])
    common = np.clip(high - low, 0, None).prod(-1)
    iou: NDArray[np.float64] = common / (first[:, 2:].prod(-1)[:, None] + second[:, 2:].prod(-1)[None] - common)
    return iou


def match(annotated: Boxes, detected: Boxes, iou: float) -> list[tuple[int, int]]:
    """Find the bipartite matching with the largest sum of intersections over union.

    Args:
        annotated: boxes (n, 4).
        detected: boxes (m, 4).
        iou: smallest intersection over union of a pair. A worse pair weighs nothing, so that it never takes the partner
            of a good one.

    Returns:
        Pairs of indices (annotated, detected).
    """
    weight = overlaps(annotated, detected)
    weight[weight < iou] = 0
    rows, columns = linear_sum_assignment(weight, maximize=True)
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if weight[row, column] > 0]


def relabel(
    folder: Path, split: str, detections: Path, *, iou: float = 0.5, confidence: float = 0.5
) -> dict[str, list[Record]]:
    """Replace the boxes of ``<folder>/<split>.json`` by those of a detector.

    Landmarks stay with their face. The original annotations are kept in ``<folder>/annotated/``, and every run starts
    from them, so that it can be interrupted and repeated.

    Args:
        folder: a converted data set.
        split: name of the split.
        detections: COCO results file: records with `image_id` (of that split), `bbox` (x, y, width, height in pixels)
            and `score`.
        iou: smallest intersection over union of an annotated and a detected box that match.
        confidence: smallest score of a detection that is used.

    Returns:
        The changes, which are also written to ``<split>.changes.json``: boxes that were `replaced` (before and after),
        `added` and `unmatched`.

    Raises:
        ConvertError: a file cannot be read, or the two do not fit together.
        OSError: a file cannot be written.
    """
    path, original = folder / f"{split}.json", folder / _ORIGINALS / f"{split}.json"
    data = read_json(original if original.exists() else path)
    images = {image["id"]: image for image in data["images"]}
    found = _detections(detections, images, confidence)
    by_image: dict[int, list[Record]] = defaultdict(list)
    for annotation in data["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    changes: dict[str, list[Record]] = {"replaced": [], "added": [], "unmatched": []}
    result = [
        annotation
        for number, image in images.items()
        for annotation in _relabel_image(image, by_image[number], found[number], iou, changes)
    ]
    if not original.exists():
        write_json(original, data)
    write_json(folder / f"{split}.changes.json", changes)
    numbered = [{**annotation, "id": number} for number, annotation in enumerate(result, start=1)]
    write_json(path, {**data, "annotations": numbered})
    return changes


def _relabel_image(
    image: Record, annotated: list[Record], detected: list[list[float]], iou: float, changes: dict[str, list[Record]]
) -> list[Record]:
    """The new annotations of an image; what is different is added to `changes`."""
    old = np.array([annotation["bbox"] for annotation in annotated], dtype=float).reshape(-1, 4)
    partners = dict(match(old, np.array(detected, dtype=float).reshape(-1, 4), iou))
    result = []
    for index, annotation in enumerate(annotated):
        if index in partners:
            box = detected[partners[index]]
            changes["replaced"].append({"image": image["file_name"], "before": annotation["bbox"], "after": box})
            result.append({**annotation, **_extent(box)})
        else:
            changes["unmatched"].append({"image": image["file_name"], "before": annotation["bbox"]})
            result.append(annotation)
    for index, box in enumerate(detected):
        if index not in partners.values():
            changes["added"].append({"image": image["file_name"], "after": box})
            result.append({"image_id": image["id"], "category_id": 1, "iscrowd": 0, "ignore": 0, **_extent(box)})
    return result


def _extent(box: list[float]) -> Record:
    return {"bbox": box, "area": round(box[2] * box[3], 3)}


def _detections(file: Path, images: dict[int, Record], confidence: float) -> dict[int, list[list[float]]]:
    """Boxes by image, clipped to it, of confident detections that are at least a pixel wide and high."""
    found: dict[int, list[list[float]]] = defaultdict(list)
    records = read_json(file)
    try:
        for number, record in enumerate(records, start=1):
            x, y, width, height = map(float, record["bbox"])
            if not all(map(math.isfinite, (x, y, width, height, record["score"]))):
                raise ConvertError(f"{file}, record {number}: holds numbers that are not finite; write it again.")
            if record["image_id"] not in images:
                raise ConvertError(f"{file}, record {number}: image {record['image_id']} is not of this split.")
            image = images[record["image_id"]]
            box = clip((x, y, width, height), image["width"], image["height"])
            if record["score"] >= confidence and min(box[2:]) >= 1:
                found[image["id"]].append([round(value, 3) for value in box])
    except (KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConvertError(f"{file}: is no list of COCO results ({reason}); it needs image_id, bbox, score.") from None
    return found
