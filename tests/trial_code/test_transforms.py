"""Boxes and landmarks stay on what they name through every transform."""

from __future__ import annotations

import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmdet.structures.bbox import HorizontalBoxes
from retinaface import modules  # noqa: F401
from retinaface.transforms import FlipFaces, RandomSquareCrop, ResizeFaces


def picture(width: int = 90, height: int = 60) -> dict:
    """Two faces; each landmark is the only pixel of its value (face * 10 + landmark + 1)."""
    image = np.zeros((height, width, 3), np.uint8)
    boxes = np.float32([[10, 10, 30, 34], [50, 20, 76, 50]])
    landmarks = np.zeros((2, 5, 3), np.float32)
    for face, (x1, y1, x2, y2) in enumerate(boxes):
        across, down = (x2 - x1) / 4, (y2 - y1) / 4
        points = [(1, 1), (3, 1), (2, 2), (1, 3), (3, 3)]
        landmarks[face] = [(x1 + i * across, y1 + j * down, 2) for i, j in points]
        for number, (x, y, _) in enumerate(landmarks[face]):
            image[int(y), int(x)] = face * 10 + number + 1
    # The middle of the pixel, so that mirroring stays in it.
    landmarks[..., :2] = np.floor(landmarks[..., :2]) + 0.5
    return {
        "img": image,
        "img_shape": (height, width),
        "gt_bboxes": HorizontalBoxes(boxes),
        "gt_bboxes_labels": np.zeros(2, int),
        "gt_ignore_flags": np.zeros(2, bool),
        "gt_landmarks": landmarks,
    }


def values_at(results: dict) -> list[list[int]]:
    """The image's value at each annotated landmark, 0 for the others."""
    return [
        [int(results["img"][int(y), int(x), 0]) if v else 0 for x, y, v in face] for face in results["gt_landmarks"]
    ]


def test_mirrored_landmarks_swap_sides() -> None:
    results = FlipFaces(prob=1.0)(picture())
    assert values_at(results) == [[2, 1, 3, 5, 4], [12, 11, 13, 15, 14]]
    assert results["gt_bboxes"].tensor.tolist() == [[60, 10, 80, 34], [14, 20, 40, 50]]


def test_mirroring_twice_changes_nothing() -> None:
    before = picture()
    after = FlipFaces(prob=1.0)(FlipFaces(prob=1.0)(picture()))
    assert (after["img"] == before["img"]).all()
    assert (after["gt_landmarks"] == before["gt_landmarks"]).all()
    assert after["gt_bboxes"].tensor.tolist() == before["gt_bboxes"].tensor.tolist()


def test_resizing_moves_landmarks_with_boxes() -> None:
    before = picture()
    after = ResizeFaces(scale=(45, 120))(picture())
    assert after["img"].shape[:2] == (120, 45)
    assert after["gt_landmarks"] == pytest.approx(before["gt_landmarks"] * [0.5, 2, 1])
    assert after["gt_bboxes"].tensor.numpy() == pytest.approx(before["gt_bboxes"].tensor.numpy() * [0.5, 2, 0.5, 2])


@pytest.mark.parametrize("min_ratio", [0.3, 0.55, 1.0])
def test_crop_is_square_and_keeps_faces_by_their_centre(min_ratio: float) -> None:
    np.random.seed(0)
    crop = RandomSquareCrop(min_ratio)
    sides, counts = [], set()
    for _ in range(200):
        results = crop(picture())
        side, width = results["img"].shape[:2]
        assert side == width == results["img_shape"][0]
        boxes = results["gt_bboxes"].tensor.numpy()
        assert len(boxes) == len(results["gt_landmarks"]) == len(results["gt_ignore_flags"])
        assert (boxes >= 0).all() and (boxes <= side).all()
        for values in values_at(results):
            first = next(value - number for number, value in enumerate(values) if value)  # 1 or 11, by face
            assert all(value in (0, first + number) for number, value in enumerate(values))
        sides.append(side)
        counts.add(len(boxes))
    assert min(sides) >= round(60 * min_ratio) and max(sides) <= 60
    assert counts <= {1, 2} and 1 in counts


def test_crop_scale_is_uniform_above_its_minimum() -> None:
    """With a face that fills the image no draw is refused, so the first one's scale is seen."""
    np.random.seed(0)
    whole = picture(1000, 1000)
    whole["gt_bboxes"] = HorizontalBoxes(np.float32([[0, 0, 1000, 1000], [0, 0, 1000, 1000]]))
    scales = np.sort([RandomSquareCrop(0.4, tries=1)._choose(1000, 1000, np.empty((0, 2)))[2] for _ in range(2000)])
    expected = np.linspace(400, 1000, 2000)
    assert np.abs(scales - expected).max() < 25  # Kolmogorov-Smirnov distance below 0.042


def test_crop_finds_the_only_small_face() -> None:
    """Even when no random square holds it."""
    np.random.seed(0)
    results = picture(90, 60)
    results["gt_bboxes"] = HorizontalBoxes(np.float32([[0, 0, 2, 2], [0, 0, 2, 2]]))
    after = RandomSquareCrop(0.3, tries=1)(results)
    assert after["gt_bboxes"].tensor.tolist() == [[0, 0, 2, 2]] * 2


def test_crop_looks_for_faces_that_are_learned_only() -> None:
    np.random.seed(0)
    for _ in range(50):
        results = picture()
        results["gt_ignore_flags"][0] = True
        after = RandomSquareCrop(0.3)(results)
        assert not after["gt_ignore_flags"].all()
    nothing = picture()
    nothing["gt_ignore_flags"][:] = True
    assert RandomSquareCrop(0.3)(nothing)["img"].shape[0] >= 18


def test_pipeline_keeps_landmarks_inside_boxes(options, splits, tmp_path) -> None:
    """The whole training pipeline of the config, on drawn faces."""
    from retinaface.pipelines import use_split

    config = options.load_config()
    use_split(config.train_dataloader, splits[0], tmp_path)
    np.random.seed(0)
    dataset = DATASETS.build(config.train_dataloader.dataset)
    seen = 0
    for index in [*range(len(dataset))] * 3:
        sample = dataset[index]
        assert tuple(sample["inputs"].shape) == (3, 64, 64)
        truth = sample["data_samples"].gt_instances
        for box, points in zip(truth.bboxes.tensor, truth.landmarks, strict=True):
            for x, y, visible in points:
                if visible:
                    assert box[0] - 1 <= x <= box[2] + 1 and box[1] - 1 <= y <= box[3] + 1
                    seen += 1
    assert seen > 50
