from __future__ import annotations

import math
import os

import numpy as np
import pytest

from nni_hyperfd.datasets import coco
from nni_hyperfd.datasets.convert import lists
from nni_hyperfd.datasets.convert.conversion import convert
from nni_hyperfd.datasets.convert.record import ConvertError, Face

WIDER_TRAIN = """0--Parade/0_Parade_marchingband_1_849.jpg
2
10 20 30 40 0 0 0 0 0 0
50 20 0 40 2 0 0 1 2 0
0--Parade/0_Parade_Parade_0_452.jpg
0
0 0 0 0 0 0 0 0 0 0
9--Press_Conference/9_Press_Conference_Press_Conference_9_129.jpg
1
-5 10 30 30 0 0 1 1 0 0
"""
WIDER_VAL = "1--Handshaking/1_Handshaking_Handshaking_1_35.jpg\n1\n5 6 20 20 0 0 0 0 0 0\n"
LABEL = """# 0--Parade/0_Parade_marchingband_1_849.jpg
10 20 30 40 15.5 30 0.0 30 30 0.0 22 40 0.0 17 50 1.0 -1.0 -1.0 -1.0 0.82
50 20 0 40 -1.0 -1.0 -1.0 -1.0 -1.0 -1.0 -1.0 -1.0 -1.0 -1.0 -1.0 -1.0 -1.0 -1.0 -1.0 0.0
"""


@pytest.fixture
def wider(tmp_path, save_image):
    source = tmp_path / "WIDER"
    (source / "wider_face_split").mkdir(parents=True)
    for split, text in (("train", WIDER_TRAIN), ("val", WIDER_VAL)):
        (source / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt").write_text(text)
        for name in filter(lambda line: line.endswith(".jpg"), text.splitlines()):
            save_image(source / f"WIDER_{split}" / "images" / name)
    return source


def test_wider_face(wider):
    band, empty, press, hands = lists.wider(wider, ())
    assert band.faces == (Face((10, 20, 30, 40)), Face((50, 20, 0, 40), ignore=True, invalid=True))
    assert empty.faces == () and press.faces == (Face((-5, 10, 30, 30), ignore=True, invalid=True),)
    assert [picture.split for picture in (band, empty, press, hands)] == ["train"] * 3 + ["val"]
    assert all(picture.path.is_file() for picture in (band, empty, press, hands))
    assert press.where.endswith("wider_face_train_bbx_gt.txt, line 8")


def test_wider_face_with_the_landmarks_of_retinaface(wider):
    (wider / "train").mkdir()
    (wider / "train" / "label.txt").write_text(LABEL)
    face, thin = next(lists.wider(wider, ())).faces
    assert face.landmarks == ((15.5, 30), (30, 30), (22, 40), (17, 50), None) and thin.landmarks is None


def test_validation_faces_of_wider_face_have_their_level(wider, tmp_path, save_wider_level):
    for level, counted in {"easy": [], "medium": [1], "hard": [1]}.items():
        save_wider_level(wider / "wider_face_split", level, counted)
    convert("wider", wider, tmp_path / "out")
    levels = {
        split: [face.get("wider_level") for face in coco.load(tmp_path / "out", split).annotations]
        for split in ("train", "val")
    }
    assert levels == {"train": [None], "val": ["medium"]}


def test_wider_face_is_cleaned(wider, tmp_path):
    report = convert("wider", wider, tmp_path / "out")
    assert report["splits"] == {"train": {"images": 1, "faces": 1}, "val": {"images": 1, "faces": 1}}
    assert {kind: len(items) for kind, items in report["changes"].items()} == {
        "invalid face without area": 1,
        "image without a face": 2,
        "box clipped to the image": 1,
        "face marked invalid by the source, ignored": 1,
    }
    assert report["annotated"] == {"images": 4, "faces": 4}
    assert report["rule"] == "official: train, val"


def test_wider_face_as_it_is_downloaded(wider, tmp_path):
    (wider / "wider_face_split" / "wider_face_val.mat").write_bytes(b"the same in another format")
    (wider / "wider_face_split" / "wider_face_train_bbx_gt.txt").unlink()
    (tmp_path / "unpacked").mkdir()
    (wider / "WIDER_val").rename(wider / "wider_face_split" / "WIDER_val")
    (hands,) = lists.wider(wider, ())
    assert hands.split == "val" and hands.path.is_file()
    (wider / "wider_face_split" / "wider_face_val_bbx_gt.txt").unlink()
    with pytest.raises(ConvertError, match="holds no wider_face_train_bbx_gt.txt and no wider_face_val_bbx_gt.txt"):
        list(lists.wider(wider, ()))


def test_umdaa(tmp_path, save_image):
    save_image(tmp_path / "Data" / "x" / "u7" / "s1" / "1.jpg")
    rows = [
        "Data/x/u7/s1/1.jpg,10,20,40,60,1",
        "Data/x/u7/s1/2.jpg,-1,-1,-1,-1,-1",
        "Data/x/u8/s1/3.jpg,1,2,3,4,3",
    ]
    (tmp_path / "AnnotatedAA02_TL_BR.csv").write_text("\n".join(rows))
    face, nothing, lost = lists.umdaa(tmp_path, ())
    assert face.path.is_file() and face.faces == (Face((10, 20, 30, 40)),) and face.group == "u7"
    assert nothing.faces == () and lost.unusable and lost.notes == (("missing data", "flag 3"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg\n", "line 2: the number of faces is due here"),
        ("a.jpg\n2\n1 2 3 4 0 0 0 0 0 0\n", "line 1: 1 of the 2 faces of a.jpg are missing; the file is cut off"),
        ("a.jpg\n1\n1 2 3 4 0 0 0\n", "line 3: 10 numbers are due here, not '1 2 3 4 0 0 0'"),
        ("a.jpg\n1\n1 2 3 x 0 0 0 0 0 0\n", "line 3: 10 numbers are due here"),
    ],
)
def test_a_list_that_cannot_be(wider, text, message):
    (wider / "wider_face_split" / "wider_face_val_bbx_gt.txt").write_text(text)
    with pytest.raises(ConvertError, match=f"wider_face_val_bbx_gt.txt, {message}"):
        list(lists.wider(wider, ()))


def test_missing_annotations_are_named(tmp_path):
    with pytest.raises(ConvertError, match="holds no wider_face_train_bbx_gt.txt and"):
        list(lists.wider(tmp_path, ()))
    with pytest.raises(ConvertError, match="holds no FDDB-fold"):
        list(lists.fddb(tmp_path, ()))


def test_ufdd(tmp_path):
    folder = tmp_path / "UFDD-annotationfile" / "UFDD_split"
    folder.mkdir(parents=True)
    text = (
        b"haze/haze_00001.jpg\n1\n1 2 30 40 0 0 0 0 0 0\ndistractor/d.jpg\n0\nrain/\xe4.jpg\n1\n5 6 7 8 0 0 0 0 0 0\n"
    )
    (folder / "UFDD_val_bbx_gt.txt").write_bytes(text)
    haze, distractor, rain = lists.ufdd(tmp_path, ())
    assert haze.path == tmp_path / "UFDD_val" / "images" / "haze" / "haze_00001.jpg"
    assert haze.faces == (Face((1, 2, 30, 40)),) and distractor.faces == () and haze.split is None
    assert os.fsencode(rain.path.name) == b"\xe4.jpg"


def test_fddb(tmp_path, save_image):
    folds = tmp_path / "FDDB-folds"
    folds.mkdir()
    for fold in ("01", "10"):
        name = f"2002/08/{fold}/big/img_591"
        save_image(tmp_path / "originalPics" / f"{name}.jpg")
        (folds / f"FDDB-fold-{fold}.txt").write_text(name)
        # The second ellipse reaches over the left edge.
        ellipses = "30 20 1.5707963267948966 50 40  1\n30 20 0 10 40  1\n"
        (folds / f"FDDB-fold-{fold}-ellipseList.txt").write_text(f"{name}\n2\n{ellipses}")
    first, second = lists.fddb(tmp_path, ())
    assert first.path.is_file() and second.path.is_file()
    assert first.faces[0].box == pytest.approx((30, 10, 40, 60))
    assert first.faces[1].box == pytest.approx((-20, 20, 60, 40))
    report = convert("fddb", tmp_path, tmp_path.with_name("converted"))
    assert sum(part["faces"] for part in report["splits"].values()) == 4
    assert len(report["changes"]["box clipped to the image"]) == 2


@pytest.mark.parametrize("angle", [0, 0.3, math.pi / 2, -1.2, 3])
def test_the_box_of_an_ellipse_is_that_of_its_points(angle):
    turns = np.linspace(0, 2 * np.pi, 100_001)
    x = 7 + 50 * np.cos(turns) * np.cos(angle) - 30 * np.sin(turns) * np.sin(angle)
    y = 9 + 50 * np.cos(turns) * np.sin(angle) + 30 * np.sin(turns) * np.cos(angle)
    box = lists.ellipse_box(50, 30, angle, 7, 9)
    assert box == pytest.approx((x.min(), y.min(), np.ptp(x), np.ptp(y)), abs=1e-6)
