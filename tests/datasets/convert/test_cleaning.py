from __future__ import annotations

import math
import os

import pytest
from PIL import Image

from nni_hyperfd.datasets.convert.cleaning import Changes, clean, clean_faces
from nni_hyperfd.datasets.convert.record import Face, Picture


def cleaned(faces, normalised=False):
    changes = Changes()
    picture = Picture(None, tuple(faces), "list.txt, line 3", normalised=normalised)
    return list(clean_faces(picture, 100, 80, changes)), dict(changes.items)


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ((5, 5, 0, 10), "box without area"),
        ((5, 5, 10, -2), "box without area"),
        ((math.nan, 5, 10, 10), "box without area"),
        ((math.inf, 5, 10, 10), "box without area"),
        ((100, 5, 10, 10), "box outside the image"),
        ((-20, 5, 20, 10), "box outside the image"),
        ((5, 5, 0.5, 10), "box thinner than a pixel"),
    ],
)
def test_a_box_that_cannot_be_is_dropped_with_its_place(box, kind):
    kept, changes = cleaned([Face(box)])
    assert kept == [] and list(changes) == [kind]
    assert changes[kind][0].startswith("list.txt, line 3: box ")


def test_boxes_are_clipped_scaled_and_kept_once():
    kept, changes = cleaned([Face((-10, 70, 30, 30)), Face((10, 10, 5, 5)), Face((10, 10, 5, 5))])
    assert [face.box for face in kept] == [(0, 70, 20, 10), (10, 10, 5, 5)]
    assert {kind: len(items) for kind, items in changes.items()} == {"box clipped to the image": 1, "box twice": 1}
    (face,), changes = cleaned([Face((0.1, 0.25, 0.5, 0.5))], normalised=True)
    assert face.box == pytest.approx((10, 20, 50, 40)) and not changes


def test_landmarks_outside_are_left_out():
    inside, outside = (20.0, 30.0), (101.0, 10.0)
    kept, changes = cleaned([Face((10, 10, 50, 50), (inside, outside, None, None, None))])
    assert kept[0].landmarks == (inside, None, None, None, None)
    assert changes == {"landmark outside the image": ["list.txt, line 3: 101 10"]}
    assert cleaned([Face((10, 10, 50, 50), (outside,) * 5)])[0][0].landmarks is None


def test_images_that_cannot_be_used_are_named(tmp_path, save_image):
    good = save_image(tmp_path / "good.png")
    (tmp_path / "twin.png").write_bytes(good.read_bytes())
    (tmp_path / "empty.jpg").touch()
    whole = save_image(tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    odd = save_image(tmp_path / "odd.png").rename(tmp_path / os.fsdecode(b"\xff\xe4.png"))
    faceless = save_image(tmp_path / "faceless.png")
    faces = (Face((1, 1, 9, 9)),)
    names = ["good.png", "twin.png", "empty.jpg", "cut.jpg", "gone.png"]
    pictures = [Picture(tmp_path / name, faces, name) for name in names]
    ignored = Picture(faceless, (Face((1, 1, 9, 9), ignore=True),), "faceless")
    pictures += [Picture(odd, faces, "odd"), ignored]
    changes = Changes()
    kept = list(clean(tmp_path, pictures, changes))
    assert [picture.picture.where for picture in kept] == ["good.png", "odd"]
    assert (kept[0].width, kept[0].height) == (100, 80)
    assert changes.counts() == {
        "image twice": 1,
        "image unreadable": 2,
        "image missing": 1,
        "image without a face": 1,
    }


@pytest.mark.parametrize("name", ["../secret.png", "sub/../../secret.png", "{root}/secret.png"])
def test_an_image_outside_the_source_is_not_taken(tmp_path, name):
    Image.new("RGB", (64, 64)).save(tmp_path / "secret.png")
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    changes = Changes()
    picture = Picture(source / name.format(root=tmp_path), (Face((1, 1, 30, 30)),), "list.txt, line 1")
    assert list(clean(source, [picture], changes)) == []
    assert list(changes.items) == ["image outside the source"]
