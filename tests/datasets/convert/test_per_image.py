from __future__ import annotations

import json

import pytest

from nni_hyperfd.datasets.convert import per_image
from nni_hyperfd.datasets.convert.layouts import LAYOUTS
from nni_hyperfd.datasets.convert.record import ConvertError, Face


def annotation(kind, box):
    return {"isProtected": False, "ID": 1, "BoundingBox": box, "classname": kind, "Confidence": 1, "Attributes": {}}


def test_facemask(tmp_path):
    folder = tmp_path / "Medical mask" / "Medical Mask"
    (folder / "annotations").mkdir(parents=True)
    kinds = ("face_with_mask", "mask_surgical", "face_no_mask", "hat")
    items = [annotation(kind, [10 + place, 20, 40, 60]) for place, kind in enumerate(kinds)]
    document = {"FileName": "1801.jpg", "NumOfAnno": 4, "Annotations": items}
    (file := folder / "annotations" / "1801.jpg.json").write_text(json.dumps(document))
    (picture,) = per_image.facemask(tmp_path, ())
    assert picture.path == folder / "images" / "1801.jpg"
    assert picture.faces == (Face((10, 20, 30, 40)), Face((12, 20, 28, 40)))
    for content, message in [
        (json.dumps(document)[:40], "line 1: is no json"),
        ("", "line 1: is no json"),
        ('{"FileName": "a.jpg"}', "is not an annotation of FaceMask"),
        (json.dumps(document | {"Annotations": [annotation("face_no_mask", [1, 2])]}), "is not an annotation"),
    ]:
        file.write_text(content)
        with pytest.raises(ConvertError, match=f"1801.jpg.json.*{message}"):
            list(per_image.facemask(tmp_path, ()))


PERSON = """<object><name>person</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>90</xmax><ymax>79</ymax></bndbox>
<part><name>{part}</name>
<bndbox><xmin>11.5</xmin><ymin>21</ymin><xmax>40.5</xmax><ymax>60</ymax></bndbox></part></object>"""


def test_pascal(tmp_path):
    (tmp_path / "Annotations").mkdir()
    for name, part in (("2008_000001", "head"), ("2008_000002", "hand"), ("2008_000003", "head")):
        text = f"<annotation><filename>{name}.jpg</filename>{PERSON.format(part=part)}</annotation>"
        (tmp_path / "Annotations" / f"{name}.xml").write_text(text)
    (tmp_path / "ImageSets" / "Layout").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Layout" / "train.txt").write_text("2008_000001  1\n")
    (tmp_path / "ImageSets" / "Layout" / "val.txt").write_text("2008_000003  1\n2008_000003  2\n")
    first, third = per_image.pascal(tmp_path, ())
    assert first.faces == third.faces == (Face((10.5, 20, 30, 40)),)
    assert (first.split, third.split) == ("train", "val")
    assert first.path == tmp_path / "JPEGImages" / "2008_000001.jpg"


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_every_layout_says_that_an_empty_folder_holds_nothing(tmp_path, name):
    with pytest.raises(ConvertError, match="holds no"):
        list(LAYOUTS[name](tmp_path, ()))
