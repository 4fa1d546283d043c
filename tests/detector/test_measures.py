"""Precision, recall and thresholds on detections whose matches can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from nni_hyperfd.datasets.coco import CocoSplit
from nni_hyperfd.detector.measures import faces_of, match


def split(*faces: tuple[int, list[float], int]) -> CocoSplit:
    """Images 1 and 2 of 100 pixels with faces (image, box, ignored)."""
    images = [{"id": number, "file_name": "-", "width": 100, "height": 100} for number in (1, 2)]
    annotations = [{"image_id": image, "bbox": box, "ignore": ignore, "iscrowd": 0} for image, box, ignore in faces]
    return CocoSplit(Path(), "val", {}, images, annotations)


def results(*found: tuple[int, list[float], float]) -> list[dict]:
    return [{"image_id": image, "bbox": box, "score": score} for image, box, score in found]


LEFT, RIGHT, SMALL = [0.0, 0.0, 40.0, 40.0], [50.0, 50.0, 40.0, 40.0], [90.0, 0.0, 4.0, 4.0]


def test_hits_misses_and_ignored_faces() -> None:
    faces = faces_of(split((1, LEFT, 0), (1, RIGHT, 1), (2, LEFT, 0), (2, SMALL, 0)), min_face=0.05)
    found = results((1, LEFT, 0.9), (1, LEFT, 0.8), (1, RIGHT, 0.7), (2, RIGHT, 0.6), (2, LEFT, 0.5), (2, SMALL, 0.4))
    matched = match(faces, found)
    assert matched.faces == 2, "one is ignored, one is too small"
    assert matched.scores.tolist() == [0.9, 0.8, 0.6, 0.5] and matched.hits.tolist() == [True, False, False, True]
    precision, recall = matched.curve()
    assert precision.tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 2]) and recall.tolist() == [0.5, 0.5, 0.5, 1]
    assert matched.ap() == pytest.approx(0.5 * 1 + 0.5 * 0.5)
    assert [scores.tolist() for scores in matched.found.values()] == [[0.9], [0.5]]


def test_thresholds_are_the_lowest_scores_of_a_precision() -> None:
    faces = faces_of(split((1, LEFT, 0), (2, LEFT, 0)), min_face=0.0)
    matched = match(faces, results((1, LEFT, 0.9), (2, LEFT, 0.8), (2, RIGHT, 0.8), (1, RIGHT, 0.3)))
    high, low = matched.threshold(0.9), matched.threshold(0.6)
    assert high is not None and (high.score, high.precision, high.recall) == (0.9, 1.0, 0.5)
    assert low is not None and (low.score, low.recall) == (0.8, 1.0) and low.precision == pytest.approx(2 / 3)
    best = matched.best_threshold()
    assert best is not None and best.score == 0.8
    assert match(faces, results((1, RIGHT, 0.9))).threshold(0.9) is None
    assert match(faces, []).best_threshold() is None and match(faces, []).ap() == 0


def test_only_faces_of_a_size_count_and_only_detections_of_that_size_against_it() -> None:
    faces = faces_of(split((1, LEFT, 0), (1, SMALL, 0)), min_face=0.0)
    found = results((1, [0, 60, 5, 5], 0.9), (1, LEFT, 0.8), (1, [60, 0, 30, 30], 0.7))
    small, large = match(faces, found, (0, 10)), match(faces, found, (10, 1000))
    assert (small.faces, small.hits.tolist()) == (1, [False])
    assert (large.faces, large.hits.tolist()) == (1, [True, False]) and large.ap() == 1
    assert match(faces, found, (1000, 2000)).ap() is None
