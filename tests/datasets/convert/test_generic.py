from __future__ import annotations

import json
import re

import pytest

from nni_hyperfd.datasets.convert import generic
from nni_hyperfd.datasets.convert.record import ConvertError, Face
from nni_hyperfd.datasets.convert.yolo import yolo

XML = """<annotation><filename>{name}</filename>
<size><width>100</width><height>80</height></size>{objects}</annotation>"""
OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult>
<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>40</xmax><ymax>60</ymax></bndbox></object>"""


def coco_document(**changes):
    document = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "sub/b.png"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 2, "bbox": [1, 2, 30, 40], "keypoints": [5, 6, 2] * 4 + [0, 0, 0]},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]},
            {"id": 3, "image_id": 8, "category_id": 2, "bbox": [5, 6, 7, 8], "iscrowd": 1},
        ],
        "categories": [{"id": 2, "name": "Face"}, {"id": 3, "name": "hand"}],
    }
    return document | changes


def test_coco_folders_of_splits(tmp_path, save_image):
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(coco_document()))
        save_image(tmp_path / split / "a.png")
    (tmp_path / "train" / "notes.json").write_text('{"images": 3}')
    pictures = list(generic.coco(tmp_path, ()))
    assert [(picture.split, picture.path.relative_to(tmp_path).as_posix()) for picture in pictures] == [
        ("train", "train/a.png"),
        ("train", "train/b.png"),
        ("val", "valid/a.png"),
        ("val", "valid/b.png"),
    ]
    first, second, *_ = pictures
    assert first.faces == (Face((1, 2, 30, 40), ((5, 6),) * 4 + (None,)),)
    assert second.faces == (Face((5, 6, 7, 8), ignore=True),)
    assert first.where.endswith("_annotations.coco.json, image 7")


@pytest.mark.parametrize("name", ["instances_val2017.json", "val.json"])
def test_a_coco_file_names_its_split(tmp_path, save_image, name):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / name).write_text(json.dumps(coco_document()))
    save_image(tmp_path / "images" / "sub" / "b.png")
    pictures = list(generic.coco(tmp_path, ["hand", "Face"]))
    assert [picture.split for picture in pictures] == ["val", "val"]
    assert len(pictures[0].faces) == 2 and pictures[1].path.is_file()


def test_coco_files_of_one_folder_name_their_splits_and_so_do_folders_of_images(tmp_path, save_image):
    for split in ("train", "val"):
        save_image(tmp_path / f"{split}2017" / "a.png")
        (tmp_path / f"x_{split}.json").write_text(json.dumps(coco_document(annotations=[])))
    assert [picture.split for picture in generic.coco(tmp_path, ["Face"])] == ["train"] * 2 + ["val"] * 2
    for split in ("train", "val"):
        (tmp_path / f"x_{split}.json").unlink()
    images = [{"id": 1, "file_name": "train2017/a.png"}, {"id": 2, "file_name": "val2017/a.png"}]
    (tmp_path / "all.json").write_text(json.dumps(coco_document(images=images, annotations=[])))
    assert [picture.split for picture in generic.coco(tmp_path, ["Face"])] == ["train", "val"]


def test_a_coco_file_of_all_images_comes_after_those_of_the_splits(tmp_path):
    for name in ("annotations", "test", "train"):
        (tmp_path / f"{name}.json").write_text(json.dumps(coco_document()))
    assert [picture.split for picture in generic.coco(tmp_path, ())] == ["test"] * 2 + ["train"] * 2 + [None] * 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [\n{"id"', r"line 2: is no json .* cut off"),
        (json.dumps(coco_document(images=[{"id": 7, "file_name": "a"}] * 2)), "image id 7 occurs twice"),
        (json.dumps(coco_document(images=[])), "annotation 1 is of the unknown image 7"),
        (json.dumps(coco_document(categories=[{"id": 2, "name": "a"}, {"id": 3, "name": "b"}])), "--category: a, b"),
        (json.dumps(coco_document(categories=[{"id": 2, "name": "face"}])), r"is not COCO \(KeyError: 3\)"),
        (json.dumps({"images": []}), "is not COCO"),
        (
            json.dumps(coco_document(annotations=[{"id": 5, "image_id": 7, "category_id": 2}])),
            "annotation 5 has no 'bbox'",
        ),
        (json.dumps(coco_document(images=[{"id": 7}], annotations=[])), "image 7 has no 'file_name'"),
    ],
)
def test_a_coco_file_that_cannot_be(tmp_path, content, message):
    (file := tmp_path / "train.json").write_text(content)
    with pytest.raises(ConvertError, match=rf"^{re.escape(str(file))}.*{message}"):
        list(generic.coco(file, ()))


def test_an_unknown_category_lists_the_known(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(coco_document()))
    with pytest.raises(ConvertError, match="has no category mask; its categories are: Face, hand"):
        list(generic.coco(tmp_path, ["mask"]))


def test_voc_with_lists_of_splits(tmp_path, save_image):
    for name in ("one", "two"):
        save_image(tmp_path / "JPEGImages" / f"{name}.png")
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        objects = OBJECT.format(name="face", difficult=int(name == "two")) + OBJECT.format(name="cat", difficult=0)
        (tmp_path / "Annotations" / f"{name}.xml").write_text(XML.format(name=f"{name}.png", objects=objects))
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("one\n")
    (lists / "test.txt").write_text("two\n")
    one, two = generic.voc(tmp_path, ())
    assert one.path.is_file() and two.path.is_file()
    assert (one.split, one.faces) == ("train", (Face((10, 20, 30, 40)),))
    assert (two.split, two.faces) == ("test", (Face((10, 20, 30, 40), ignore=True),))


def test_voc_with_a_folder_for_each_split(tmp_path):
    for folder in ("WIDER_train_annotations", "WIDER_val_annotations", "train_val"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.xml").write_text(XML.format(name="a.png", objects=""))
    assert [picture.split for picture in generic.voc(tmp_path, ())] == ["train", "val", None]


def test_an_image_of_another_suffix_is_found(tmp_path, save_image):
    save_image(tmp_path / "images" / "a.png")
    (tmp_path / "a.xml").write_text(XML.format(name="a.jpeg", objects=OBJECT.format(name="face", difficult=0)))
    (picture,) = generic.voc(tmp_path, ())
    assert picture.path == tmp_path / "images" / "a.png"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: is no xml"),
        ("<annotation>\n<object>\n", "line 3: is no xml .* cut off"),
        (XML.format(name="a.png", objects="<object><name>face</name></object>"), "an? <object> has no <bndbox/xmin>"),
        (XML.format(name="", objects=OBJECT.format(name="face", difficult=0)), "<annotation> has no <filename>"),
        (
            XML.format(name="a.png", objects=OBJECT.format(name="face", difficult=0)).replace("40", "wide"),
            "4 numbers are due here, not '10 20 wide 60'",
        ),
    ],
)
def test_an_xml_file_that_cannot_be(tmp_path, content, message):
    (file := tmp_path / "a.xml").write_text(content)
    with pytest.raises(ConvertError, match=rf"^{re.escape(str(file))}.*{message}"):
        list(generic.voc(tmp_path, ()))


@pytest.mark.parametrize("layout", [generic.coco, generic.voc, yolo])
def test_an_empty_folder_says_so(tmp_path, layout):
    with pytest.raises(ConvertError, match="holds no"):
        list(layout(tmp_path, ()))
