"""WIDER FACE's own protocol: easy, medium and hard. Its numbers cannot be compared with AP@50."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray

from nni_hyperfd.datasets.coco import WIDER_LEVELS as LEVELS

THRESHOLDS = 1000
IOU = 0.5

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Image:
    """Detections and faces of one image.

    Attributes:
        boxes: (n, 4), boxes of the detections as x1, y1, x2, y2.
        scores: (n,), falling.
        faces: (m, 4), boxes of the faces as x1, y1, x2, y2.
        levels: (m,), index in LEVELS of the easiest level that a face belongs to, 3 for none.
    """

    boxes: Floats
    scores: Floats
    faces: Floats
    levels: NDArray[np.int_]


@METRICS.register_module()
class WiderFaceAP(BaseMetric):
    """`wider/easy`, `wider/medium` and `wider/hard`, each in [0, 1], as WIDER FACE's evaluation computes them.

    The faces of a level are those of it and of all easier levels; others are ignored. The levels come from the
    benchmark's own lists, as the key `wider_level` of the annotations: one of LEVELS, absent for a face of no level.
    The pipeline has to pack the meta key `instances`.
    """

    default_prefix = "wider"

    def process(self, data_batch: dict[str, Any], data_samples: Sequence[dict[str, Any]]) -> None:
        """Collect the detections and faces of a batch."""
        for sample in data_samples:
            scores = sample["pred_instances"]["scores"].cpu().numpy().astype(np.float64)
            order = np.argsort(-scores, kind="stable")
            boxes = sample["pred_instances"]["bboxes"].cpu().numpy().astype(np.float64)
            faces = np.array([face["bbox"] for face in sample["instances"]], np.float64).reshape(-1, 4)
            levels = np.array([face["level"] for face in sample["instances"]], int)
            self.results.append(Image(boxes[order], scores[order], faces, levels))

    def compute_metrics(self, results: list[Image]) -> dict[str, float]:
        """AP of each level."""
        return dict(zip(LEVELS, wider_ap(results), strict=True))


def wider_ap(images: Sequence[Image]) -> list[float]:
    """AP of each of LEVELS, NaN for a level without faces.

    It differs from AP@50: scores are stretched to [0, 1] over all images and compared with 1000 thresholds, a pixel is
    added to each side of a box for its IoU, and an image without faces or without detections only adds its faces.
    """
    images = _stretched(images)
    overlaps = [_iou(image.boxes, image.faces) for image in images]
    return [_ap([image.levels <= level for image in images], overlaps, images) for level in range(len(LEVELS))]


def _stretched(images: Sequence[Image]) -> list[Image]:
    """The images with scores that run from 0 to 1."""
    scores = np.concatenate([image.scores for image in images]) if images else np.empty(0)
    if not len(scores):
        return list(images)
    low, high = scores.min(), scores.max()
    span = (high - low) or 1.0
    return [Image(image.boxes, (image.scores - low) / span, image.faces, image.levels) for image in images]


def _iou(boxes: Floats, faces: Floats) -> Floats:
    """IoU (n, m) of boxes (n, 4) and (m, 4), with each width and height one pixel larger than its coordinates say."""
    low = np.maximum(boxes[:, None, :2], faces[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], faces[None, :, 2:])
    shared = np.clip(high - low + 1, 0, None).prod(axis=2)
    area, other = ((b[:, 2:] - b[:, :2] + 1).prod(axis=1) for b in (boxes, faces))
    overlap: Floats = shared / (area[:, None] + other[None] - shared)
    return overlap


def _ap(counted: Sequence[NDArray[np.bool_]], overlaps: Sequence[Floats], images: Sequence[Image]) -> float:
    """AP of some faces, NaN without any.

    Args:
        counted: for each image (m,), whether a face counts; the others are ignored.
        overlaps: for each image (n, m), IoU of detections and faces.
        images: n detections and m faces each.
    """
    total = sum(int(mask.sum()) for mask in counted)
    if not total:
        return float("nan")
    thresholds = 1 - (np.arange(THRESHOLDS) + 1) / THRESHOLDS
    proposals, found = np.zeros(THRESHOLDS), np.zeros(THRESHOLDS)
    for image, overlap, mask in zip(images, overlaps, counted, strict=True):
        if not overlap.size:
            continue
        best = overlap.argmax(axis=1)
        on_face = overlap.max(axis=1) >= IOU
        right = on_face & mask[best]
        # A face is found by its first detection; a detection of an ignored face is not a proposal.
        first = np.zeros(len(best), bool)
        first[np.flatnonzero(right)[np.unique(best[right], return_index=True)[1]]] = True
        recalled, proposed = np.cumsum(first), np.cumsum(right | ~on_face)
        seen = np.searchsorted(-image.scores, -thresholds, side="right")  # detections at or above each threshold
        proposals += np.where(seen > 0, proposed[seen - 1], 0)
        found += np.where(seen > 0, recalled[seen - 1], 0)
    precision = np.divide(found, proposals, out=np.zeros(THRESHOLDS), where=proposals > 0)
    return _area(found / total, precision)


def _area(recall: Floats, precision: Floats) -> float:
    """Area under the curve whose precision is made monotonically falling, as in PASCAL VOC since 2010."""
    recall = np.concatenate([[0.0], recall, [1.0]])
    falling = np.maximum.accumulate(np.concatenate([precision, [0.0]])[::-1])[::-1]
    return float((np.diff(recall) * falling).sum())
