from __future__ import annotations

from pathlib import Path

import pytest

from nni_hyperfd.datasets import coco
from nni_hyperfd.platform import Ranking
from nni_hyperfd.platform.presets import Neighbour
from nni_hyperfd.tuning import first_look


def split_of(side: float, faces: int) -> coco.CocoSplit:
    images = [{"id": number, "width": 200, "height": 100} for number in (1, 2)]
    boxes = [
        {"image_id": 1 + number % 2, "bbox": [0, 0, side, side], "ignore": 0, "iscrowd": 0} for number in range(faces)
    ]
    return coco.CocoSplit(Path(), "train", {}, images, boxes)


@pytest.mark.parametrize(
    ("side", "faces", "words"),
    [
        (2, 40, "tiny faces, many per image"),
        (6, 9, "small faces, several per image"),
        (20, 4, "middling faces, few per image"),
        (60, 2, "large faces, one per image"),
    ],
)
def test_a_data_set_in_words(side: float, faces: int, words: str) -> None:
    assert first_look.faces_in_words(split_of(side, faces)) == words


def test_without_a_state_the_warm_up_is_what_is_known_and_nothing_is_made(tmp_path: Path) -> None:
    with first_look.state_or_warm_up(tmp_path / "none.sqlite") as platform:
        tasks = [task for task in platform.tasks() if task.space.kind == "hpo"]
    assert len(tasks) == 17 and list(tmp_path.iterdir()) == []
    many = next(task for task in tasks if task.dataset == "events-labels-kmeans-6-5")
    words = "the warm-up's events-labels-kmeans-6-5 (215 images, many per image, AP@50 0.39 to 0.80)"
    assert first_look.task_in_words(many) == words
    alike = next(task for task in tasks if task.dataset == "joint-labels-agglomerative-9-7")
    one = first_look.spread(Ranking([], [Neighbour(alike.id, 0.1, 1.0)]), tasks)
    assert 0.01 < one < 0.06 < first_look.spread(Ranking([], []), tasks)


def test_a_deviation_in_words() -> None:
    assert [first_look.how_sure(value) for value in (0.1, 0.5, 0.7, 1.0)] == [
        "quite sure",
        "fairly sure",
        "fairly unsure",
        "hardly more than a guess",
    ]
