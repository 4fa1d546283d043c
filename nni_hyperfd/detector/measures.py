"""How good detections are, measured as a trial measures its AP: precision, recall, AP and thresholds.

Detections are matched to faces image by image, by falling score, at an IoU of 0.5. A detection whose best match is an
ignored face counts neither for nor against.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.datasets.coco import CocoSplit, Record, is_usable
from nni_hyperfd.detector.onnx_detector import overlaps

IOU = 0.5
PRECISIONS = (0.9, 0.95, 0.99)
"""The precisions for which a threshold is given."""

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Faces:
    """The annotated faces of an image.

    Attributes:
        image: id of the image.
        boxes: (n, 4) as x1, y1, x2, y2 in pixels.
        counts: (n,), whether a face counts; the others are ignored.
    """

    image: int
    boxes: Floats
    counts: Flags


@dataclass(frozen=True)
class Matched:
    """Detections of several images, by falling score, without those that count neither for nor against.

    Attributes:
        scores: (n,).
        hits: (n,), whether a detection has found a face that nothing of a higher score has found.
        found: score at which each face that counts is found, -1 for one that is not found at all; by image id, in the
            order of the image's faces that count.
    """

    scores: Floats
    hits: Flags
    found: dict[int, Floats]

    @property
    def faces(self) -> int:
        """Number of faces that count."""
        return sum(map(len, self.found.values()))

    def curve(self) -> tuple[Floats, Floats]:
        """Precision and recall (n,) of the detections down to each score."""
        hits = np.cumsum(self.hits)
        return hits / np.arange(1, len(hits) + 1), hits / max(self.faces, 1)

    def ap(self) -> float | None:
        """Area under the curve of precision and recall, as in the trial; None without a face that counts."""
        if not self.faces:
            return None
        precision, recall = self.curve()
        precision = np.concatenate([[0.0], precision, [0.0]])
        recall = np.concatenate([[0.0], recall, [1.0]])
        highest = np.maximum.accumulate(precision[::-1])[::-1]
        return float((np.diff(recall) * highest[1:]).sum())

    def threshold(self, precision: float) -> Threshold | None:
        """The lowest score down to which detections have this precision; None if they never have it."""
        reached, recall = self.curve()
        # Equal scores are shown or hidden together.
        last = np.append(self.scores[:-1] != self.scores[1:], True) if len(self.scores) else np.zeros(0, bool)
        places = np.flatnonzero(last & (reached >= precision))
        return None if not len(places) else self._at(places[-1], reached, recall)

    def best_threshold(self) -> Threshold | None:
        """The score with the highest harmonic mean of precision and recall; None without detections."""
        precision, recall = self.curve()
        if not len(precision):
            return None
        place = np.argmax(2 * precision * recall / np.maximum(precision + recall, 1e-12))
        return self._at(place, precision, recall)

    def _at(self, place: np.intp, precision: Floats, recall: Floats) -> Threshold:
        return Threshold(float(self.scores[place]), float(precision[place]), float(recall[place]))


@dataclass(frozen=True)
class Threshold:
    """Showing only detections of at least a score.

    Attributes:
        score: the score.
        precision: share of these detections that are faces.
        recall: share of the faces that these detections find.
    """

    score: float
    precision: float
    recall: float


def faces_of(split: CocoSplit, min_face: float) -> list[Faces]:
    """The faces of each image of a split.

    Args:
        split: the annotations.
        min_face: faces whose shorter side is a smaller share of that of their image are ignored.
    """
    by_image: dict[int, list[Record]] = defaultdict(list)
    for annotation in split.annotations:
        by_image[annotation["image_id"]].append(annotation)
    result = []
    for image in split.images:
        own, smallest = by_image[image["id"]], min_face * min(image["width"], image["height"])
        counts = [is_usable(face) and min(face["bbox"][2:]) >= smallest for face in own]
        result.append(Faces(image["id"], corners(own), np.array(counts, bool)))
    return result


def corners(records: Sequence[Record]) -> Floats:
    """Boxes (n, 4) of COCO records as x1, y1, x2, y2."""
    boxes = np.array([record["bbox"] for record in records], float).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def sizes(boxes: Floats) -> Floats:
    """Side (n,) of the square with the area of each box, in pixels."""
    sides: Floats = np.sqrt((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1))
    return sides


def match(
    faces: Iterable[Faces], results: Iterable[Record], between: tuple[float, float] = (0.0, float("inf"))
) -> Matched:
    """Match detections to faces.

    Args:
        faces: of each image.
        results: COCO results; those of other images are left out.
        between: only faces of a size (`sizes`) in this half-open range count, and only detections of such a size count
            as false ones.
    """
    by_image: dict[int, list[Record]] = defaultdict(list)
    for record in results:
        by_image[record["image_id"]].append(record)
    scores: list[float] = []
    hits: list[bool] = []
    found = {}
    for own in faces:
        detected = sorted(by_image[own.image], key=lambda record: -record["score"])
        counts = own.counts & _within(own.boxes, between)
        found[own.image], judged = _match_image(own.boxes, counts, detected, between)
        scores += [detected[place]["score"] for place, _ in judged]
        hits += [hit for _, hit in judged]
    order = np.argsort(-np.array(scores, float), kind="stable")
    return Matched(np.array(scores, float)[order], np.array(hits, bool)[order], found)


def _within(boxes: Floats, between: tuple[float, float]) -> Flags:
    within: Flags = (sizes(boxes) >= between[0]) & (sizes(boxes) < between[1])
    return within


def _match_image(
    boxes: Floats, counts: Flags, detected: list[Record], between: tuple[float, float]
) -> tuple[Floats, list[tuple[int, bool]]]:
    """Scores at which an image's faces are found, and (place, whether it is a hit) of each detection that counts."""
    own = corners(detected)
    iou, within = overlaps(own, boxes), _within(own, between)
    scores = np.full(len(boxes), -1.0)
    judged = []
    for place, record in enumerate(detected):
        # Of equal overlaps the trial's metric takes a face that counts.
        best = max(range(len(boxes)), key=lambda face: (iou[place, face], counts[face]), default=None)
        if best is None or iou[place, best] < IOU:
            if within[place]:
                judged.append((place, False))
        elif counts[best]:
            judged.append((place, bool(scores[best] < 0)))
            scores[best] = max(scores[best], record["score"])
    return scores[counts], judged
