from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nni_hyperfd.datasets.coco import AnnotationError
from nni_hyperfd.datasets.subsets import pool
from nni_hyperfd.datasets.subsets.errors import SubsetsError


def test_sources_are_joined_split_by_split(source, tmp_path, monkeypatch):
    second = tmp_path / "second"
    (second / "images").mkdir(parents=True)
    (second / "images" / "a.png").write_bytes((source / "images" / "train1.png").read_bytes())
    document = json.loads((source / "train.json").read_text())
    document["images"] = [{**document["images"][0], "file_name": "a.png"}]
    document["annotations"] = [one for one in document["annotations"] if one["image_id"] == 1]
    (second / "train.json").write_text(json.dumps(document))
    (second / "notes.txt").write_text("something else")
    monkeypatch.chdir(tmp_path)
    found = pool.read([Path("source"), Path("second")])
    assert len(found) == 61 and found.splits.tolist() == ["train"] * 37 + ["val"] * 6 + ["test"] * 18
    assert found.paths[36] == second / "images" / "a.png" and found.faces[36] == document["annotations"]
    part = found.select(np.array([36, 40]))
    assert part.paths == [found.paths[36], found.paths[40]] and part.splits.tolist() == ["train", "val"]
    assert part.faces[1] == found.faces[40] and part.images[0]["file_name"] == "a.png"


def test_usable_images_have_a_face_that_counts():
    flags = [[], [(1, 0)], [(0, 1)], [(1, 0), (0, 0)]]
    faces = [[{"ignore": ignore, "iscrowd": crowd} for ignore, crowd in own] for own in flags]
    assert pool.Pool([], np.array([]), [], faces).usable.tolist() == [False, False, False, True]


def test_what_is_wrong_is_named(source, tmp_path):
    with pytest.raises(SubsetsError, match="one folder is named twice"):
        pool.read([source, source / ".." / "source"])
    with pytest.raises(AnnotationError, match="train.json: there is no such annotation file"):
        pool.read([tmp_path / "none"])
    (source / "images" / "val3.png").write_bytes(b"")
    with pytest.raises(AnnotationError, match=r"val.json: image 3 \(val3.png\) cannot be decoded"):
        pool.read([source])
