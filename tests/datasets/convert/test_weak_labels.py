from __future__ import annotations

import json
from itertools import permutations

import numpy as np
import pytest

from nni_hyperfd.datasets import coco
from nni_hyperfd.datasets.convert import weak_labels
from nni_hyperfd.datasets.convert.record import ConvertError


def slow_iou(a, b):
    cells = [{(x, y) for x in range(box[0], box[0] + box[2]) for y in range(box[1], box[1] + box[3])} for box in (a, b)]
    return len(cells[0] & cells[1]) / len(cells[0] | cells[1])


def test_overlaps_and_the_matching_are_those_of_trying_everything():
    random = np.random.default_rng(0)
    for _ in range(30):
        boxes = random.integers(1, 12, (7, 4))
        first, second = boxes[:3], boxes[3:]
        expected = np.array([[slow_iou(a, b) for b in second] for a in first])
        np.testing.assert_allclose(weak_labels.overlaps(first.astype(float), second.astype(float)), expected)
        good = np.where(expected >= 0.3, expected, 0)
        best = max(sum(good[range(3), columns]) for columns in permutations(range(4), 3))
        pairs = weak_labels.match(first.astype(float), second.astype(float), 0.3)
        assert sum(expected[pair] for pair in pairs) == pytest.approx(best)
        assert all(expected[pair] >= 0.3 for pair in pairs)
    assert weak_labels.match(np.zeros((0, 4)), second.astype(float), 0.3) == []


@pytest.fixture
def folder(tmp_path, save_image):
    points = [12, 12, 2] * 5
    face = {"category_id": 1, "iscrowd": 0, "ignore": 0, "area": 400}
    document = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 100, "height": 80} for n in (1, 2)],
        "annotations": [
            {"id": 1, "image_id": 1, "bbox": [10, 10, 20, 20], "keypoints": points, "num_keypoints": 5, **face},
            {"id": 2, "image_id": 2, "bbox": [60, 50, 20, 20], **face},
        ],
        "categories": [{"id": 1, "name": "face"}],
    }
    for number in (1, 2):
        save_image(tmp_path / "images" / f"{number}.png")
    (tmp_path / "train.json").write_text(json.dumps(document))
    return tmp_path


def results(folder, *rows):
    records = [{"image_id": image, "category_id": 1, "bbox": box, "score": score} for image, box, score in rows]
    (file := folder / "results.json").write_text(json.dumps(records))
    return file


def test_relabel(folder, recwarn):
    before = (folder / "train.json").read_text()
    rows = [
        (1, [11, 10, 20, 22], 0.9),
        (1, [10, 10, 20, 20], 0.4),
        (1, [-5, 60, 15, 15], 0.8),
        (2, [5, 5, 9, 9], 0.7),
    ]
    file = results(folder, *rows)
    changes = weak_labels.relabel(folder, "train", file)
    assert changes == {
        "replaced": [{"image": "1.png", "before": [10, 10, 20, 20], "after": [11, 10, 20, 22]}],
        "added": [{"image": "1.png", "after": [0, 60, 10, 15]}, {"image": "2.png", "after": [5, 5, 9, 9]}],
        "unmatched": [{"image": "2.png", "before": [60, 50, 20, 20]}],
    }
    assert json.loads((folder / "train.changes.json").read_text()) == changes
    split = coco.load(folder, "train")
    assert not recwarn.list and split.num_boxes == 4
    assert split.annotations[0]["bbox"] == [11, 10, 20, 22] and split.annotations[0]["num_keypoints"] == 5
    assert split.annotations[0]["area"] == 440
    assert json.loads((folder / "annotated" / "train.json").read_text()) == json.loads(before)
    after = (folder / "train.json").read_bytes()
    assert weak_labels.relabel(folder, "train", file) == changes
    assert (folder / "train.json").read_bytes() == after


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"image_id": 3, "bbox": [1, 2, 3, 4], "score": 1}]', "record 1: image 3 is not of this split"),
        ('[{"image_id": 1, "bbox": [1, 2, 3, NaN], "score": 1}]', "record 1: holds numbers that are not finite"),
        ('[{"image_id": 1, "score": 1}]', "is no list of COCO results"),
        ("[{", "line 1: is no json"),
    ],
)
def test_results_that_cannot_be(folder, content, message):
    before = (folder / "train.json").read_bytes()
    (folder / "results.json").write_text(content)
    with pytest.raises(ConvertError, match=f"results.json.*{message}"):
        weak_labels.relabel(folder, "train", folder / "results.json")
    assert (folder / "train.json").read_bytes() == before
