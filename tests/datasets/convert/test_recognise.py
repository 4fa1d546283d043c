from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from nni_hyperfd.datasets.convert.recognise import layout_of
from nni_hyperfd.datasets.convert.record import ConvertError

COCO = json.dumps({"images": [], "annotations": [], "categories": []})
FILES = {
    "coco": {"x/train.json": COCO},
    "voc": {"a.xml": "<annotation></annotation>"},
    "yolo": {"a.jpg": None, "a.txt": "0 0.5 0.5 0.1 0.1", "notes.json": "{}"},
    "wider": {"split/wider_face_val_bbx_gt.txt": "", "split/wider_face_val.mat": ""},
    "fddb": {"FDDB-folds/FDDB-fold-01-ellipseList.txt": "", "a.xml": "<annotation></annotation>"},
    "facemask": {"annotations/1.json": json.dumps({"FileName": "1.jpg", "Annotations": []})},
    "umdaa": {"AnnotatedAA02_TL_BR.csv": ""},
}


def write(folder: Path, files: dict[str, str | None]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            Image.new("RGB", (40, 30)).save(folder / name)
        else:
            (folder / name).write_text(content)


@pytest.mark.parametrize("layout", FILES)
def test_a_layout_is_recognised(tmp_path, layout):
    write(tmp_path, FILES[layout])
    assert layout_of(tmp_path) == layout


def test_two_layouts_or_none_are_for_the_user_to_say(tmp_path):
    with pytest.raises(ConvertError, match="no annotations were found in it"):
        layout_of(tmp_path)
    write(tmp_path, FILES["coco"] | FILES["voc"])
    with pytest.raises(ConvertError, match="could be coco or voc; say which with --layout"):
        layout_of(tmp_path)
    with pytest.raises(ConvertError, match="there is no such folder"):
        layout_of(tmp_path / "none")
