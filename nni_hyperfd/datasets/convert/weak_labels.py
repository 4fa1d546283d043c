"""Weak labels for data sets whose boxes are poor, as AFLW's and WIKI's (Appendix B.2 of the paper).

A pretrained detector's boxes are matched to the annotated ones; a matched box takes the detector's place, a confident
detection without a match becomes a face, and an annotated box without a match stays and is listed for a look by hand.
"""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from nni_hyperfd.datasets.convert.conversion import write_json
from nni_hyperfd.datasets.convert.generic import read_json
from nni_hyperfd.datasets.convert.record import ConvertError

_KEPT = "annotated"  # folder of the annotations before relabelling


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU (n, m) of boxes (n, 4) and (m, 4), each x, y, width, height."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum((first[:, :2] + first[:, 2:])[:, None], (second[:, :2] + second[:, 2:])[None])
    common = np.clip(high - low, 0, None).prod(-1)
    return common / (first[:, 2:].prod(-1)[:, None] + second[:, 2:].prod(-1)[None] - common)


def match(annotated: np.ndarray, detected: np.ndarray, iou: float) -> list[tuple[int, int]]:
    """Pairs (annotated, detected) of the bipartite matching with the largest sum of IoU, each of at least ``iou``.

    Boxes (n, 4) and (m, 4). A pair below ``iou`` weighs nothing, so that it never takes the partner of a good one.
    """
    weight = overlaps(annotated, detected)
    weight[weight < iou] = 0
    rows, columns = linear_sum_assignment(weight, maximize=True)
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if weight[row, column] > 0]


def relabel(folder: Path, split: str, detections: Path, *, iou: float = 0.5, confidence: float = 0.5) -> dict[str, Any]:
    """Replace the boxes of ``<folder>/<split>.json`` by those of a COCO results file; returns the list of changes.

    ``detections``: records with ``image_id`` (of that split), ``bbox`` (x, y, width, height in pixels) and ``score``,
    as COCO evaluation writes them; those below ``confidence`` are not looked at. The changes, also written to
    ``<split>.changes.json``, are ``replaced`` (with both boxes), ``added`` and ``unmatched``. Landmarks stay with their
    face. The annotations before are kept in ``<folder>/annotated/`` and every run starts from them, so that it may be
    interrupted and repeated. Raises ConvertError for files that do not fit together.
    """
    path, kept = folder / f"{split}.json", folder / _KEPT / f"{split}.json"
    data = read_json(kept if kept.exists() else path)
    images = {image["id"]: image for image in data["images"]}
    found = _detections(detections, images, confidence)
    annotations: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in data["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    changes: dict[str, list[dict[str, Any]]] = {"replaced": [], "added": [], "unmatched": []}
    result = []
    for number, image in images.items():
        old, new = annotations[number], found[number]
        boxes = [np.array([item["bbox"] for item in old], dtype=float).reshape(-1, 4), np.array(new).reshape(-1, 4)]
        partners = dict(match(*boxes, iou))
        for place, annotation in enumerate(old):
            if place in partners:
                box = new[partners[place]]
                change = {"image": image["file_name"], "before": annotation["bbox"], "after": box}
                changes["replaced"].append(change)
                annotation = {**annotation, **_extent(box)}
            else:
                changes["unmatched"].append({"image": image["file_name"], "before": annotation["bbox"]})
            result.append(annotation)
        for box in (box for place, box in enumerate(new) if place not in partners.values()):
            changes["added"].append({"image": image["file_name"], "after": box})
            result.append({"image_id": number, "category_id": 1, "iscrowd": 0, "ignore": 0, **_extent(box)})
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        write_json(kept, data)
    write_json(folder / f"{split}.changes.json", changes)
    numbered = [{**annotation, "id": number} for number, annotation in enumerate(result, start=1)]
    write_json(path, {**data, "annotations": numbered})
    return changes


def _extent(box: list[float]) -> dict[str, Any]:
    return {"bbox": box, "area": round(box[2] * box[3], 3)}


def _detections(file: Path, images: dict[int, dict[str, Any]], confidence: float) -> dict[int, list[list[float]]]:
    """Boxes by image, clipped to it; of detections of at least ``confidence`` and a pixel's width and height."""
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
            left, top = max(x, 0.0), max(y, 0.0)
            box = [left, top, min(x + width, image["width"]) - left, min(y + height, image["height"]) - top]
            if record["score"] >= confidence and min(box[2:]) >= 1:
                found[image["id"]].append([round(value, 3) for value in box])
    except (KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConvertError(f"{file}: is no list of COCO results ({reason}); it needs image_id, bbox, score.") from None
    return found
