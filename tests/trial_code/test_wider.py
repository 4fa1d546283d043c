"""WIDER FACE's protocol against hand-made cases and a slow version that follows its description step by step."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from retinaface.wider import Image, WiderFaceAP, wider_ap

A, B, C = [0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]
EASY, MEDIUM, HARD, NONE = range(4)


def image(found: list[tuple[list[float], float]], faces: list[tuple[list[float], int]]) -> Image:
    """found: box and score, by falling score; faces: box and level."""
    return Image(
        np.array([box for box, _ in found], float).reshape(-1, 4),
        np.array([score for _, score in found]),
        np.array([box for box, _ in faces], float).reshape(-1, 4),
        np.array([level for _, level in faces], int),
    )


def test_each_level_has_the_faces_of_the_easier_ones() -> None:
    """Three faces, one a level; the two easier ones are found, which costs the hard level the third's recall."""
    faces = [(A, EASY), (B, MEDIUM), (C, HARD)]
    assert wider_ap([image([(A, 0.9), (B, 0.8)], faces)]) == pytest.approx([1, 1, 2 / 3])


def test_detections_on_faces_of_no_level_do_not_count() -> None:
    assert wider_ap([image([(B, 0.9), (A, 0.8)], [(A, EASY), (B, NONE)])])[0] == 1


def test_second_detection_of_a_face_is_wrong() -> None:
    found = [(A, 0.9), (A, 0.8), (B, 0.1)]
    assert wider_ap([image(found, [(A, EASY), (B, EASY)])])[0] == pytest.approx((1 + 2 / 3) / 2)


def test_boxes_have_the_legacy_pixel() -> None:
    """10 x 10 pixels; 5 rows of them are half, 4 are not (without the pixel 4 / 9 and 3 / 9)."""
    assert wider_ap([image([([0, 0, 9, 4], 0.9)], [(A, EASY)])])[0] == 1
    assert wider_ap([image([([0, 0, 9, 3], 0.9)], [(A, EASY)])])[0] == 0


def test_scores_are_stretched_over_all_images() -> None:
    """A lowest score becomes 0, which the last of the thresholds still reaches; only their order matters."""
    small, large = [(0.3, 0.2), (3000, 2000)]
    for first, second in (small, large):
        images = [image([(C, first)], [(A, EASY)]), image([(B, second)], [(B, EASY)])]
        assert wider_ap(images)[0] == pytest.approx(1 / 2 * 1 / 2)


def test_mistakes_in_images_without_faces_are_not_seen() -> None:
    """Unlike in AP@50; faces of images without detections do count."""
    images = [image([(A, 0.5)], [(A, EASY)]), image([(C, 0.9)], []), image([], [(B, EASY)])]
    assert wider_ap(images)[0] == pytest.approx(1 / 2)


def test_nothing_found_is_zero_and_no_face_is_no_number() -> None:
    found = wider_ap([image([], [(A, MEDIUM)])])
    assert math.isnan(found[0]) and found[1:] == [0, 0]
    assert all(map(math.isnan, wider_ap([])))


def slow_ap(images: list[Image], level: int) -> float:
    """One threshold, one image, one detection at a time."""
    scores = [score for one in images for score in one.scores]
    low, high = min(scores), max(scores)
    points = []
    for step in range(1, 1001):
        threshold = 1 - step / 1000
        proposals = found = 0
        for one in images:
            taken: set[int] = set()
            for box, score in zip(one.boxes, one.scores, strict=True):
                if not len(one.faces) or (score - low) / (high - low) < threshold:
                    continue
                overlaps = [slow_iou(box, face) for face in one.faces]
                best = overlaps.index(max(overlaps))
                if overlaps[best] < 0.5:
                    proposals += 1
                elif one.levels[best] <= level:
                    proposals += 1
                    taken.add(best)
            found += len(taken)
        total = sum(int((one.levels <= level).sum()) for one in images)
        points.append((found / total, found / proposals if proposals else 0.0))
    area, last = 0.0, 0.0
    for place, (recall, _) in enumerate(points):
        area += (recall - last) * max(precision for _, precision in points[place:])
        last = recall
    return area


def slow_iou(a, b) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def test_agrees_with_the_slow_version() -> None:
    rng = np.random.default_rng(0)
    images = []
    for faces in (0, 1, 4, 7, 3):
        corners = rng.uniform(0, 60, (faces, 2))
        boxes = np.hstack([corners, corners + rng.uniform(5, 30, (faces, 2))])
        near = boxes[rng.integers(0, faces, 9)] + rng.normal(0, 2, (9, 4)) if faces else rng.uniform(0, 60, (2, 4))
        scores = -np.sort(-rng.uniform(0.02, 0.97, len(near)))
        images.append(Image(near, scores, boxes, rng.integers(0, 4, faces)))
    expected = [slow_ap(images, level) for level in range(3)]
    assert wider_ap(images) == pytest.approx(expected, abs=1e-9)
    assert all(0.1 < value < 0.95 for value in expected) and len(set(expected)) == 3


def test_metric_sorts_detections_and_reads_levels() -> None:
    metric = WiderFaceAP()
    sample = {
        "pred_instances": {"bboxes": torch.tensor([C, A, B]).float(), "scores": torch.tensor([0.1, 0.5, 0.9])},
        "instances": [{"bbox": A, "level": EASY}, {"bbox": B, "level": HARD}],
    }
    metric.process({}, [sample])
    found = metric.evaluate(1)
    assert found == {"wider/easy": 1, "wider/medium": 1, "wider/hard": 1}
