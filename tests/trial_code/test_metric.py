"""AP@50 against hand-computed cases and mmdet's eval_map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.evaluation import eval_map
from retinaface.metric import FaceAP


def sample(found: list[list[float]], truth: list[list[float]], ignored: list[list[float]] = ()) -> dict:
    """found: x1, y1, x2, y2, score."""

    def boxes(rows: list[list[float]]) -> torch.Tensor:
        return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)

    found = torch.tensor(found, dtype=torch.float32).reshape(-1, 5)
    return {
        "pred_instances": {"bboxes": found[:, :4], "scores": found[:, 4]},
        "gt_instances": {"bboxes": boxes(truth)},
        "ignored_instances": {"bboxes": boxes(ignored)},
    }


def ap50(samples: list[dict]) -> float:
    metric = FaceAP()
    metric.process({}, samples)
    return metric.evaluate(len(samples))["face/ap50"]


A, B, C = [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]


def test_hit_miss_hit() -> None:
    """Two of two faces with a miss between: precisions 1 and 2/3 at recalls 1/2 and 1."""
    assert ap50([sample([[*A, 0.9], [*C, 0.8], [*B, 0.7]], [A, B])]) == pytest.approx((1 + 2 / 3) / 2)


def test_detection_on_an_ignored_face_does_not_count() -> None:
    assert ap50([sample([[*A, 0.9], [*C, 0.8], [*B, 0.7]], [A, B], ignored=[C])]) == 1
    assert ap50([sample([[*C, 0.8]], [A], ignored=[C])]) == 0


def test_second_detection_of_a_face_is_a_miss() -> None:
    assert ap50([sample([[*A, 0.9], [*A, 0.8], [*B, 0.7]], [A, B])]) == pytest.approx((1 + 2 / 3) / 2)


def test_box_needs_half_the_union() -> None:
    """No legacy pixel: 10 x 5 of 10 x 10 is exactly 0.5."""
    assert ap50([sample([[0, 0, 10, 5, 0.9]], [A])]) == 1
    assert ap50([sample([[0, 0, 10, 4.9, 0.9]], [A])]) == 0


def test_scores_are_compared_over_images() -> None:
    assert ap50([sample([[*A, 0.5]], [A]), sample([[*A, 0.9]], [B])]) == pytest.approx(1 / 2 * 1 / 2)


def test_no_detection_is_zero_and_no_face_an_error() -> None:
    assert ap50([sample([], [A])]) == 0
    with pytest.raises(ValueError, match="has no face that counts"):
        ap50([sample([[*A, 0.9]], [], ignored=[A])])


def test_agrees_with_eval_map() -> None:
    rng = np.random.default_rng(0)
    samples, detections, annotations = [], [], []
    for _ in range(6):
        corners = rng.uniform(0, 60, (8, 2))
        boxes = np.hstack([corners, corners + rng.uniform(5, 30, (8, 2))]).astype(np.float32)
        near = boxes[rng.integers(0, 8, 20)] + rng.normal(0, 2, (20, 4))
        found = np.hstack([near, rng.uniform(size=(20, 1))]).astype(np.float32)
        samples.append(sample(found.tolist(), boxes[:5].tolist(), boxes[5:].tolist()))
        detections.append([found])
        labels = np.zeros(5, int), np.zeros(3, int)
        annotations.append(
            {"bboxes": boxes[:5], "labels": labels[0], "bboxes_ignore": boxes[5:], "labels_ignore": labels[1]}
        )
    expected, _ = eval_map(detections, annotations, iou_thr=0.5, nproc=1, logger="silent")
    assert ap50(samples) == pytest.approx(expected, abs=1e-6)
    assert 0.1 < expected < 0.9
