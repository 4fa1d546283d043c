"""mmdet's operations on faces: landmarks stay on what they mark, or are no longer annotated."""

from __future__ import annotations

import numpy as np
import pytest
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from retinaface import modules  # noqa: F401  sets the scope in which transforms build others
from retinaface.augment import AugmentFaces, BoxOnly
from retinaface.extended import COLOR, GEOMETRY
from retinaface.parameters import apply_parameters
from retinaface.pipelines import find_transforms

SIDE = 120


def picture(centres: list[tuple[int, int]] = ((40, 40), (85, 70)), radius: int = 20) -> dict:
    """Grey faces whose landmarks are dots of 5 x 5 pixels, each of a colour of its own: red 100, 110, ... 190."""
    image = np.full((SIDE, SIDE, 3), 30, np.uint8)
    boxes, landmarks = [], np.zeros((len(centres), 5, 3), np.float32)
    for face, (x, y) in enumerate(centres):
        boxes.append([x - radius, y - radius, x + radius, y + radius])
        x1, y1, x2, y2 = np.clip(boxes[-1], 0, SIDE)
        image[y1:y2, x1:x2] = 60
        for number, (dx, dy) in enumerate([(-8, -8), (8, -8), (0, 0), (-7, 9), (7, 9)]):
            landmarks[face, number] = (x + dx + 0.5, y + dy + 0.5, 2)
            image[y + dy - 2 : y + dy + 3, x + dx - 2 : x + dx + 3, 2] = 100 + 50 * face + 10 * number
    return {
        "img": image,
        "img_shape": (SIDE, SIDE),
        "gt_bboxes": HorizontalBoxes(np.float32(boxes).reshape(-1, 4)),
        "gt_bboxes_labels": np.zeros(len(centres), np.int64),
        "gt_ignore_flags": np.zeros(len(centres), bool),
        "gt_landmarks": landmarks,
    }


def augment(results: dict, *operations: dict) -> dict:
    space = [[{"prob": 1.0, **operation}] for operation in operations]
    return AugmentFaces(space, aug_num=len(space))(results)


def check_landmarks(results: dict, least: int) -> None:
    """What is at a visible landmark is its own dot, a little blurred; at least so many are seen."""
    seen = 0
    for face in results["gt_landmarks"]:
        values = []
        for x, y, visible in face:
            if visible and 2 <= x < SIDE - 2 and 2 <= y < SIDE - 2:
                values.append(int(results["img"][int(y), int(x), 2]))
                seen += 1
        assert all(value > 80 for value in values), "a landmark is beside its dot"
        assert all(a < b + 8 for a, b in zip(values, values[1:], strict=False)), "the dots are in another order"
    assert seen >= least


@pytest.mark.parametrize("name", GEOMETRY)
def test_landmarks_go_along_with_the_image(name: str) -> None:
    total = 0
    for seed in range(25):
        np.random.seed(seed)
        before = picture()
        results = augment(picture(), {"type": name})
        check_landmarks(results, 0)
        total += (results["gt_landmarks"][..., 2] > 0).sum()
        moved = results["gt_landmarks"].shape != before["gt_landmarks"].shape or not np.allclose(
            results["gt_landmarks"], before["gt_landmarks"]
        )
        assert moved or np.array_equal(results["img"], before["img"])
        for box, points in zip(results["gt_bboxes"].tensor.numpy(), results["gt_landmarks"], strict=True):
            for x, y, _ in points[points[:, 2] > 0]:
                assert box[0] - 1 <= x <= box[2] + 1 and box[1] - 1 <= y <= box[3] + 1
    assert total > 150


@pytest.mark.parametrize("name", COLOR)
def test_colours_move_nothing(name: str) -> None:
    np.random.seed(1)
    results, before = augment(picture(), {"type": name}), picture()
    assert np.array_equal(results["gt_landmarks"], before["gt_landmarks"])
    assert np.array_equal(results["gt_bboxes"].tensor, before["gt_bboxes"].tensor)
    assert results["img"].shape == before["img"].shape


def test_operations_follow_each_other() -> None:
    for seed in range(25):
        np.random.seed(seed)
        check_landmarks(augment(picture(), *({"type": name} for name in GEOMETRY)), 0)


def test_faces_whose_centre_leaves_the_image_are_dropped() -> None:
    """A shift of half the image, which keeps one of the two."""
    shift = {"type": "TranslateX", "min_mag": 0.5, "max_mag": 0.5, "reversal_prob": 1.0}
    results = augment(picture([(40, 40), (85, 70)]), shift)
    (box,) = results["gt_bboxes"].tensor.numpy()
    assert box.tolist() == [80, 20, 120, 60]
    assert len(results["gt_landmarks"]) == len(results["gt_bboxes_labels"]) == len(results["gt_ignore_flags"]) == 1
    assert results["gt_landmarks"][0, :, 2].all()
    check_landmarks(results, 5)


def test_landmarks_that_leave_are_no_longer_annotated() -> None:
    shift = {"type": "TranslateX", "min_mag": 0.3, "max_mag": 0.3, "reversal_prob": 0.0}
    results = augment(picture([(41, 60)]), shift)  # 36 pixels to the left
    assert results["gt_bboxes"].tensor.tolist() == [[0, 40, 25, 80]]
    assert results["gt_landmarks"][0, :, 2].tolist() == [0, 2, 2, 0, 2]


def test_an_image_without_faces() -> None:
    for name in (*COLOR, *GEOMETRY):
        results = augment(picture([]), {"type": name}, {"type": "BoxOnly", "operation": {"type": name}})
        assert len(results["gt_bboxes"]) == len(results["gt_landmarks"]) == 0


@pytest.mark.parametrize("name", [*COLOR, *GEOMETRY])
def test_inside_the_box_only(name: str) -> None:
    changed = 0
    for seed in range(10):
        np.random.seed(seed)
        before, results = picture(), BoxOnly({"type": name}, 1.0)(picture())
        outside = np.ones((SIDE, SIDE), bool)
        for x1, y1, x2, y2 in before["gt_bboxes"].tensor.numpy().astype(int):
            outside[y1:y2, x1:x2] = False
        assert np.array_equal(results["img"][outside], before["img"][outside])
        assert np.array_equal(results["gt_bboxes"].tensor, before["gt_bboxes"].tensor)
        changed += not np.array_equal(results["img"], before["img"])
        if name in GEOMETRY:
            check_landmarks(results, 0)
        else:
            assert np.array_equal(results["gt_landmarks"], before["gt_landmarks"])
    assert changed >= 5


def test_it_is_the_operation_on_the_part() -> None:
    """And each face is left alone as often as it says."""
    shift = {"type": "TranslateX", "min_mag": 0.1, "max_mag": 0.1, "reversal_prob": 1.0}
    results, before = BoxOnly(shift, 1.0)(picture([(40, 40)])), picture([(40, 40)])
    assert np.array_equal(results["img"][20:60, 24:60], before["img"][20:60, 20:56])
    assert (results["img"][20:60, 20:24] == 128).all()
    assert (results["gt_landmarks"] - before["gt_landmarks"])[0].tolist() == [[4, 0, 0]] * 5
    np.random.seed(0)
    count = sum(
        not np.array_equal(BoxOnly(shift, 1 / 3)(picture([(40, 40)]))["img"], before["img"]) for _ in range(300)
    )
    assert 75 < count < 125


def test_boxes_at_the_edge_and_tiny_ones() -> None:
    for name in (*COLOR, *GEOMETRY):
        np.random.seed(0)
        results = BoxOnly({"type": name}, 1.0)(picture([(15, 15), (110, 110)]))
        assert results["img"].shape == (SIDE, SIDE, 3)
    tiny = picture([(40, 40)])
    tiny["gt_bboxes"] = HorizontalBoxes(np.float32([[40, 40, 43, 60]]))
    before = tiny["img"].copy()
    assert np.array_equal(BoxOnly({"type": "Rotate", "min_mag": 30.0}, 1.0)(tiny)["img"], before)


@pytest.mark.parametrize(("value", "operations"), [("color", 8), ("geometric", 13), ("box_only", 26)])
def test_the_policies_of_the_space(options, value: str, operations: int) -> None:
    """Cumulative, on bytes and before the photometric distortion, which makes floats of them."""
    config = apply_parameters(options.load_config(), {"augmentation": value})
    kinds = [step["type"] for step in config.train_dataloader.dataset.pipeline]
    assert kinds.index("FlipFaces") + 1 == kinds.index("AugmentFaces") == kinds.index("PhotoMetricDistortion") - 1
    (policy,) = find_transforms(config.train_dataloader, "AugmentFaces")
    assert len(policy["aug_space"]) == operations
    counts, transform = set(), TRANSFORMS.build(policy)
    for seed in range(30):
        np.random.seed(seed)
        results = transform(picture())
        assert results["img"].dtype == np.uint8
        counts.add(len(results["gt_bboxes"]))
    assert 2 in counts
