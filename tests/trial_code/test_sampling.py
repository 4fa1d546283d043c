"""Data-anchor-sampling: the sizes of faces, where the square lies, and that boxes follow the image."""

from __future__ import annotations

import numpy as np
import pytest
from mmdet.structures.bbox import HorizontalBoxes
from retinaface.sampling import BORDER, DataAnchorSampling

ANCHORS = [16, 32, 64, 128, 256, 512]


def picture(boxes: list[list[float]], width: int, height: int, ignored: list[bool] | None = None) -> dict:
    """Faces are bright on black; the corners of their boxes are their first four landmarks."""
    image = np.zeros((height, width, 3), np.uint8)
    landmarks = np.zeros((len(boxes), 5, 3), np.float32)
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        image[int(y1) : int(y2), int(x1) : int(x2)] = 255
        points = [(x1, y1), (x2, y1), (x1, y2), (x2, y2), ((x1 + x2) / 2, (y1 + y2) / 2)]
        landmarks[number] = [(x, y, 2) for x, y in points]
    return {
        "img": image,
        "img_shape": (height, width),
        "gt_bboxes": HorizontalBoxes(np.float32(boxes).reshape(-1, 4)),
        "gt_bboxes_labels": np.zeros(len(boxes), np.int64),
        "gt_ignore_flags": np.array(ignored or [False] * len(boxes)),
        "gt_landmarks": landmarks,
    }


def box_of(results: dict) -> np.ndarray:
    (box,) = results["gt_bboxes"].tensor.numpy()
    return box


@pytest.mark.parametrize(("side", "largest"), [(10, 32), (30, 64), (100, 256), (600, 512)])
def test_faces_get_the_size_of_anchors(side: int, largest: int) -> None:
    """From half of the smallest anchor to twice the one above the nearest; all those anchors come equally often."""
    np.random.seed(0)
    sampling = DataAnchorSampling(10_000, ANCHORS)
    sizes = np.array([side * sampling._scale(side, side) for _ in range(4000)])
    used = [anchor for anchor in ANCHORS if anchor <= largest]
    assert sizes.min() >= 8 and sizes.max() <= 2 * largest
    # Of the uniform on [a / 2, 2 a] a third is below a; the smallest anchor alone reaches below the second's half.
    share = np.mean(sizes < used[0]) if len(used) > 1 else np.mean(sizes < used[0] * 2)
    assert share == pytest.approx(1 / 3 / len(used), abs=0.03)
    assert sizes.mean() == pytest.approx(np.mean(used) * 1.25, rel=0.1)


def test_the_size_of_a_face_is_the_root_of_its_area_and_it_fits() -> None:
    np.random.seed(0)
    sampling = DataAnchorSampling(64, [16])
    sides = [np.sqrt(10 * 40) * sampling._scale(10, 40) for _ in range(500)]
    assert min(sides) >= 8 and max(sides) == pytest.approx(32, abs=0.5)
    assert max(1000 * sampling._scale(1000, 20) for _ in range(100)) == pytest.approx(64)


def test_boxes_and_landmarks_follow_the_image() -> None:
    """Drawn faces are where their boxes are said to be, to the pixel."""
    for seed in range(40):
        np.random.seed(seed)
        results = DataAnchorSampling(96, ANCHORS).transform(picture([[60, 40, 90, 80]], 160, 120))
        assert results["img"].shape == (96, 96, 3) and results["img_shape"] == (96, 96)
        x1, y1, x2, y2 = box_of(results)
        assert -1e-3 <= min(x1, y1) and max(x2, y2) <= 96 + 1e-3
        assert (x2 - x1) / (y2 - y1) == pytest.approx(30 / 40, rel=1e-3)
        rows, columns = np.nonzero(results["img"][:, :, 0] > 128)  # half of a face's, and not the border
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert found == pytest.approx([x1, y1, x2, y2], abs=1.01)
        ((a, b, _), *_, (cx, cy, _)) = results["gt_landmarks"][0]
        assert [a, b, cx, cy] == pytest.approx([x1, y1, (x1 + x2) / 2, (y1 + y2) / 2], abs=1e-3)


def test_the_square_stays_in_a_larger_image_and_holds_a_smaller_one() -> None:
    for seed in range(60):
        np.random.seed(seed)
        image = picture([[20, 30, 44, 54]], 150, 70)
        image["img"][:] = 200
        results = DataAnchorSampling(64, [16, 32]).transform(image)
        scale = (box_of(results)[2] - box_of(results)[0]) / 24
        seen = np.array([150, 70]) * scale
        filled = (np.abs(results["img"][:, :, 0].astype(int) - BORDER[0]) > 36).sum(axis=(0, 1))
        expected = np.minimum(seen, 64).prod()
        assert filled == pytest.approx(expected, rel=0.1, abs=70)


def test_a_face_larger_than_the_square_is_made_to_fit() -> None:
    results = DataAnchorSampling(64, [512]).transform(picture([[0, 0, 500, 400]], 500, 400))
    assert box_of(results)[2] - box_of(results)[0] == pytest.approx(64, abs=1e-3)


def test_other_faces_are_kept_by_their_centre() -> None:
    """And cut; landmarks beyond the edge count as not annotated."""
    seen = set()
    for seed in range(60):
        np.random.seed(seed)
        results = DataAnchorSampling(64, [32]).transform(picture([[40, 40, 80, 80], [85, 40, 125, 80]], 200, 200))
        boxes, landmarks = results["gt_bboxes"].tensor.numpy(), results["gt_landmarks"]
        assert len(boxes) == len(landmarks) == len(results["gt_bboxes_labels"]) == len(results["gt_ignore_flags"])
        assert (boxes >= 0).all() and (boxes <= 64).all()
        within = ((landmarks[..., :2] >= 0) & (landmarks[..., :2] < 64)).all(axis=-1)
        assert (landmarks[..., 2] == 2 * within).all()
        seen.add(len(boxes))
    assert seen == {1, 2}


@pytest.mark.parametrize("boxes", [[], [[10.0, 10, 30, 30]], [[10.0, 10, 10, 30]]], ids=["none", "ignored", "empty"])
def test_without_a_face_to_learn_the_whole_image_is_scaled(boxes: list) -> None:
    image = picture(boxes, 128, 64, [True] * len(boxes))
    image["img"][:] = 200
    results = DataAnchorSampling(64, ANCHORS).transform(image)
    assert (results["img"][:31] > 190).all() and (results["img"][33:] == BORDER[0]).all()
    assert len(results["gt_bboxes"]) == len(boxes)


def test_a_tiny_image_and_a_huge_one() -> None:
    np.random.seed(0)
    assert DataAnchorSampling(64, ANCHORS).transform(picture([[0, 0, 1, 1]], 1, 1))["img"].shape == (64, 64, 3)
    huge = picture([[3000, 1000, 3004, 1004]], 6000, 2000)
    assert DataAnchorSampling(64, ANCHORS).transform(huge)["img"].shape == (64, 64, 3)
