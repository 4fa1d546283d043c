from __future__ import annotations

import json

import pytest

from nni_hyperfd.datasets.convert.conversion import convert
from nni_hyperfd.datasets.convert.record import ConvertError
from nni_hyperfd.datasets.convert.yolo import yolo


def test_yolo_in_two_folders(tmp_path, save_image):
    for split in ("train", "valid"):
        save_image(tmp_path / split / "images" / "a.png")
        (tmp_path / split / "labels").mkdir()
        (tmp_path / split / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n\n1 0.1 0.1 0.1 0.1\n")
    save_image(tmp_path / "train" / "images" / "empty.png")
    (tmp_path / "classes.txt").write_text("face\nhand\n")
    first, empty, second = yolo(tmp_path, ())
    assert first.faces[0].box == pytest.approx((0.4, 0.3, 0.2, 0.4))
    assert first.normalised and len(first.faces) == 1
    assert empty.faces == () and [p.split for p in (first, empty, second)] == ["train", "train", "val"]


def test_yolo_classes_by_number(tmp_path, save_image):
    save_image(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n3 0.1 0.1 0.1 0.1\n")
    with pytest.raises(ConvertError, match="--category: 0, 3"):
        list(yolo(tmp_path, ()))
    (picture,) = yolo(tmp_path, ["3"])
    assert len(picture.faces) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5", "a class and 4 numbers are due here, not 2"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2 0.3", "a class and 4 numbers are due here, not 7"),
        ("0 0.5 0.5 0.1 wide", "4 numbers are due here, not '0.5 0.5 0.1 wide'"),
        ("face 0.5 0.5 0.1 0.1", "class 'face' is no whole"),
    ],
)
def test_a_yolo_line_that_cannot_be(tmp_path, save_image, line, message):
    save_image(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(ConvertError, match=f"a.txt, line 2: .*{message}"):
        list(yolo(tmp_path, ()))


@pytest.fixture
def export(tmp_path, save_image):
    """What Roboflow exports: data.yaml names folders that lie elsewhere, and a test folder that is missing."""
    for split in ("train", "valid"):
        save_image(tmp_path / "x" / split / "images" / "a.png")
        (tmp_path / "x" / split / "labels").mkdir()
        (tmp_path / "x" / split / "labels" / "a.txt").write_text("1 0.5 0.5 0.2 0.4\n0 0.1 0.1 0.1 0.1\n")
    save_image(tmp_path / "x" / "preview.png")
    text = "train: ../train/images\nval: /content/x/valid/images\ntest: ../test/images\nnc: 2\nnames: ['hat', 'face']\n"
    (tmp_path / "x" / "data.yaml").write_text(text)
    return tmp_path / "x"


def test_data_yaml_names_classes_and_splits(export):
    pictures = list(yolo(export, ()))
    assert [(picture.split, len(picture.faces)) for picture in pictures] == [("train", 1), ("val", 1)]
    assert pictures[0].faces[0].box == pytest.approx((0.4, 0.3, 0.2, 0.4))
    (export / "list.txt").write_text("./valid/images/a.png\n./valid/images/gone.png\n")
    (export / "data.yaml").write_text("path: .\ntrain: [train/images]\nval: list.txt\nnames: {0: hat, 1: face}\n")
    assert [(p.split, p.path.is_file()) for p in yolo(export, ())] == [("train", True), ("val", True), ("val", False)]


def test_data_yaml_that_cannot_be(export):
    (export / "data.yaml").write_text("train: images\nnames: [face")
    with pytest.raises(ConvertError, match="data.yaml: cannot be read as YAML"):
        list(yolo(export, ()))
    (export / "data.yaml").write_text("train: elsewhere\nnames: [face]")
    with pytest.raises(ConvertError, match="data.yaml: its folder or list 'elsewhere' is not below"):
        list(yolo(export, ()))


def test_polygons_confidences_and_landmarks_are_boxes_too(tmp_path, save_image):
    source = tmp_path / "in"
    save_image(source / "train" / "a.png")
    points = " ".join(f"{x} 0.5 2" for x in (0.4, 0.6, 0.5, 0.4)) + " 0 0 0"
    lines = ["0 0.5 0.5 0.2 0.4 0.9", "0 0.1 0.1 0.3 0.1 0.2 0.4", f"0 0.5 0.5 0.5 0.5 {points}"]
    (source / "train" / "a.txt").write_text("\n".join(lines))
    report = convert("yolo", source, tmp_path / "out")
    assert report["splits"]["train"] == {"images": 1, "faces": 3}
    assert {kind: len(items) for kind, items in report["changes"].items()} == {
        "confidence after a box, left out": 1,
        "polygon, its bounding box taken": 1,
    }
    scored, polygon, pose = next(yolo(source, ())).faces
    assert polygon.box == pytest.approx((0.1, 0.1, 0.2, 0.3))
    assert pose.landmarks == ((0.4, 0.5), (0.6, 0.5), (0.5, 0.5), (0.4, 0.5), None)
    annotation = json.loads((tmp_path / "out" / "train.json").read_text())["annotations"][2]
    assert annotation["keypoints"][:6] == [40, 40, 2, 60, 40, 2]
