"""FaceCocoDataset: what is a target, what is ignored."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmdet.registry import DATASETS
from retinaface import modules  # noqa: F401

from nni_hyperfd.datasets import coco


def parsed(folder: Path, min_face: float = 0.0) -> list[dict]:
    coco.load(folder, "val").write(folder / "checked.json")
    config = {"type": "FaceCocoDataset", "ann_file": str(folder / "checked.json")}
    dataset = DATASETS.build({**config, "checked": True, "pipeline": [], "test_mode": True, "min_face": min_face})
    return [dataset.get_data_info(index)["instances"] for index in range(len(dataset))]


@pytest.fixture
def folder(write_folder) -> Path:
    points = [value for k in range(5) for value in (12 + k, 14 + k, 2)]
    faces = [
        {"bbox": [10, 10, 20, 30], "keypoints": points, "num_keypoints": 5},
        {"bbox": [50, 10, 5, 30]},
        {"bbox": [60, 60, 20, 20], "ignore": 1},
        {"bbox": [80, 60, 20, 20], "iscrowd": 1},
    ]
    return write_folder([((200, 100), faces), ((100, 200), [])])


def test_ignored_faces_stay_as_ignored(folder: Path) -> None:
    (faces, nothing) = parsed(folder)
    assert [face["bbox"] for face in faces] == [[10, 10, 30, 40], [50, 10, 55, 40], [60, 60, 80, 80], [80, 60, 100, 80]]
    assert [face["ignore_flag"] for face in faces] == [0, 0, 1, 1]
    assert nothing == []


def test_small_faces_are_ignored_by_their_share_of_the_image(folder: Path) -> None:
    """5 of 100 pixels is a share of 0.05, which still counts."""
    assert [face["ignore_flag"] for face in parsed(folder, min_face=0.05)[0]] == [0, 0, 1, 1]
    assert [face["ignore_flag"] for face in parsed(folder, min_face=0.051)[0]] == [0, 1, 1, 1]


def test_landmarks_are_read_or_absent(folder: Path) -> None:
    faces = parsed(folder)[0]
    assert faces[0]["landmarks"].tolist() == [[12 + k, 14 + k, 2] for k in range(5)]
    assert faces[1]["landmarks"].shape == (5, 3) and not faces[1]["landmarks"].any()


def test_wider_levels_are_read_or_none(write_folder) -> None:
    faces = [{"bbox": [10, 10, 20, 30], "wider_level": level} for level in ("easy", "hard", None)]
    assert [face["level"] for face in parsed(write_folder([((200, 100), faces)]))[0]] == [0, 2, 3]


def test_mmdets_tools_get_checked_annotations(write_folder) -> None:
    """A config names the user's file; what mmdet would train on silently is refused, or repaired, as in a trial."""
    folder = write_folder([((200, 100), [{"bbox": [190, 10, 20, 30]}])])
    config = {"type": "FaceCocoDataset", "data_root": str(folder), "ann_file": "val.json"}
    with pytest.warns(coco.AnnotationWarning, match="reaches outside its image"):
        dataset = DATASETS.build({**config, "pipeline": [], "test_mode": True})
    info = dataset.get_data_info(0)
    assert info["instances"][0]["bbox"] == [190, 10, 200, 40] and Path(info["img_path"]).is_file()
    with pytest.raises(coco.AnnotationError, match="annotation 1 reaches outside its image"):
        DATASETS.build({**config, "pipeline": [], "strict": True})
    write_folder([((200, 100), [{"bbox": [10, 10, float("nan"), 30]}])])
    with pytest.raises(coco.AnnotationError, match="four finite numbers"):
        DATASETS.build({**config, "pipeline": []})
