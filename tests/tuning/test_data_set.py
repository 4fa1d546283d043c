from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nni_hyperfd.datasets import synthetic
from nni_hyperfd.tuning import data_set
from nni_hyperfd.tuning.errors import TuningError


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.make(tmp_path_factory.mktemp("data") / "faces", "plain", images=(12, 3, 0), size=96)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_ready_data_set_is_used_where_it_lies(drawn, tmp_path):
    said: list[str] = []
    prepared = data_set.prepare(drawn, tmp_path / "out", said.append)
    assert prepared.folder == drawn and not prepared.has_test and not (tmp_path / "out").exists()
    assert said[0].startswith("train: 12 images") and any(line.startswith("Caution: ") for line in said)


def test_another_layout_is_converted_and_split_once(drawn, tmp_path):
    source, said = tmp_path / "in", []
    shutil.copytree(drawn / "images", source / "images")
    shutil.copy(drawn / "train.json", source / "all.json")
    first = data_set.prepare(source, tmp_path / "out", said.append)
    assert (first.train.num_images, first.val.num_images, first.has_test) == (7, 1, True)
    assert "Splits: drawn 6 : 1 : 3 with seed 0" in "\n".join(said)
    again = data_set.prepare(source, tmp_path / "out", said.append)
    assert again.folder == first.folder == tmp_path / "out"


def test_bad_input_says_what_to_do_and_leaves_nothing(drawn, tmp_path):
    out = tmp_path / "out"

    def refused(source: Path, words: str) -> None:
        with pytest.raises(TuningError, match=words):
            data_set.prepare(source, out, lambda line: None)
        assert not out.exists()

    refused(tmp_path / "none", "there is no such folder; name the one")
    (empty := tmp_path / "empty").mkdir()
    refused(empty, "no annotations were found in it")
    source = tmp_path / "in"
    shutil.copytree(drawn / "images", source / "images")
    content = json.loads((drawn / "train.json").read_text())
    (source / "all.json").write_text(json.dumps(content | {"annotations": []}))
    refused(source, "nothing of it can be used .* image without a face")
    (source / "all.json").write_text(json.dumps(content))
    for image in (source / "images").iterdir():
        image.write_bytes(b"no image")
    refused(source, "12 of 12 images cannot be used .12 x image unreadable")
    for split in ("train", "val"):
        shutil.copy(drawn / f"{split}.json", source)
    (source / "all.json").unlink()
    refused(source, "cannot be decoded")


def test_one_image_is_too_few(drawn, tmp_path):
    source, content = tmp_path / "in", json.loads((drawn / "train.json").read_text())
    shutil.copytree(drawn / "images", source / "images")
    content["images"] = content["images"][:1]
    content["annotations"] = [face for face in content["annotations"] if face["image_id"] == content["images"][0]["id"]]
    (source / "all.json").write_text(json.dumps(content))
    with pytest.raises(TuningError, match="too few to draw a training and a validation split from"):
        data_set.prepare(source, tmp_path / "out", lambda line: None)
