"""WIDER FACE's own protocol: easy, medium and hard. Its numbers are no AP@50 and are not to be set beside one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric

from nni_hyperfd.datasets.coco import WIDER_LEVELS as LEVELS

THRESHOLDS = 1000
IOU = 0.5


@dataclass(frozen=True)
class Image:
    """One image's detections by falling score, and its faces; boxes float64 (n, 4) as x1, y1, x2, y2.

    `levels` (faces,): the place in LEVELS of the easiest level that a face belongs to, 3 for those of none.
    """

    boxes: np.ndarray
    scores: np.ndarray
    faces: np.ndarray
    levels: np.ndarray


@METRICS.register_module()
class WiderFaceAP(BaseMetric):
    """`wider/easy`, `wider/medium` and `wider/hard`, each in [0, 1], as WIDER FACE's evaluation computes them.

    Each level's faces are those of the level and of all easier ones; the others are ignored. Which faces those are is
    what the benchmark's own lists say; here it is the key `wider_level` of an annotation, one of LEVELS, absent for
    a face of no level. The pipeline has to pack the meta key `instances`.
    """

    default_prefix = "wider"

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            scores = sample["pred_instances"]["scores"].cpu().numpy().astype(np.float64)
            order = np.argsort(-scores, kind="stable")
            boxes = sample["pred_instances"]["bboxes"].cpu().numpy().astype(np.float64)
            faces = np.array([face["bbox"] for face in sample["instances"]], np.float64).reshape(-1, 4)
            levels = np.array([face["level"] for face in sample["instances"]], int)
            self.results.append(Image(boxes[order], scores[order], faces, levels))

    def compute_metrics(self, results: list[Image]) -> dict[str, float]:
        return dict(zip(LEVELS, wider_ap(results), strict=True))


def wider_ap(images: Sequence[Image]) -> list[float]:
    """AP of each of LEVELS; NaN for one without faces.

    What sets it apart from AP@50: scores are stretched to [0, 1] over all images, and looked at through 1000
    thresholds; IoU has the legacy pixel added to each side; and an image without any box, or without any detection,
    adds nothing but its faces.
    """
    images = _stretched(images)
    overlaps = [_iou(image.boxes, image.faces) for image in images]
    return [_ap([image.levels <= level for image in images], overlaps, images) for level in range(len(LEVELS))]


def _stretched(images: Sequence[Image]) -> list[Image]:
    scores = np.concatenate([image.scores for image in images]) if images else np.empty(0)
    if not len(scores):
        return list(images)
    low, high = scores.min(), scores.max()
    span = (high - low) or 1.0
    return [Image(image.boxes, (image.scores - low) / span, image.faces, image.levels) for image in images]


def _iou(boxes: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(n, 4) and (m, 4) -> (n, m), with every width and height one pixel larger than the difference of its ends."""
    low = np.maximum(boxes[:, None, :2], faces[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], faces[None, :, 2:])
    shared = np.clip(high - low + 1, 0, None).prod(axis=2)
    area, other = ((b[:, 2:] - b[:, :2] + 1).prod(axis=1) for b in (boxes, faces))
    return shared / (area[:, None] + other[None] - shared)


def _ap(counted: Sequence[np.ndarray], overlaps: Sequence[np.ndarray], images: Sequence[Image]) -> float:
    """AP of the faces for which `counted` holds; the others are ignored."""
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
        # A face counts from its first detection on; one on an ignored face is no proposal.
        first = np.zeros(len(best), bool)
        first[np.flatnonzero(right)[np.unique(best[right], return_index=True)[1]]] = True
        recalled, proposed = np.cumsum(first), np.cumsum(right | ~on_face)
        seen = np.searchsorted(-image.scores, -thresholds, side="right")  # detections at or above each threshold
        proposals += np.where(seen > 0, proposed[seen - 1], 0)
        found += np.where(seen > 0, recalled[seen - 1], 0)
    precision = np.divide(found, proposals, out=np.zeros(THRESHOLDS), where=proposals > 0)
    return _area(found / total, precision)


def _area(recall: np.ndarray, precision: np.ndarray) -> float:
    """Area under the curve, its precision made falling from the right, as in PASCAL VOC since 2010."""
    recall = np.concatenate([[0.0], recall, [1.0]])
    falling = np.maximum.accumulate(np.concatenate([precision, [0.0]])[::-1])[::-1]
    return float((np.diff(recall) * falling).sum())
