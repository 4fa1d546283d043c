"""Data sets that are shifted to another domain."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from nni_hyperfd.cli import app
from nni_hyperfd.datasets import coco, make
from nni_hyperfd.datasets.shifted import REPORT, SHIFTS, ShiftError, shift
from nni_hyperfd.files import FolderError


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Drawn faces, with landmarks, in images that are higher than wide."""
    folder = make(tmp_path_factory.mktemp("shifted") / "plain", "plain", images=(3, 2, 2), seed=5)
    for split in ("train", "val", "test"):
        path = folder / f"{split}.json"
        content, checked = json.loads(path.read_text()), coco.load(folder, split)
        for image in content["images"]:
            file = str(checked.image_path(image))
            picture = cv2.imread(file)
            cv2.imwrite(file, np.vstack([picture, np.full_like(picture[:30], 90)]))
            image["height"] += 30
        path.write_text(json.dumps(content))
    return folder


def pictures(split):
    return [cv2.imread(str(split.image_path(image))).astype(int) for image in split.images]


def boxes(split):
    return np.array([face["bbox"] for face in split.annotations])


@pytest.mark.parametrize("name", SHIFTS)
def test_each_shift_makes_other_images_with_the_same_faces(source, tmp_path, name):
    report = shift(source, tmp_path / "out", [name], seed=1)
    assert report["images"] == {"train": 3, "val": 2, "test": 2}
    for split in ("train", "val", "test"):
        before, after = coco.load(source, split, strict=True), coco.load(tmp_path / "out", split, strict=True)
        assert len(after.annotations) == len(before.annotations)
        areas = [[face["area"] for face in one.annotations] for one in (before, after)]
        assert areas[0] == areas[1]
        pairs = list(zip(pictures(before), pictures(after), strict=True))
        assert any(old.shape != new.shape or (np.abs(old - new) > 60).mean() > 0.005 for old, new in pairs)


@pytest.mark.parametrize(("name", "back"), [("sideways", 3), ("upside_down", 2)])
def test_what_is_turned_is_where_its_annotations_say(source, tmp_path, name, back):
    """Turned back by NumPy, image, box and landmarks are the first ones."""
    shift(source, tmp_path / "out", [name])
    before, after = coco.load(source, "train"), coco.load(tmp_path / "out", "train")
    for old, new in zip(pictures(before), pictures(after), strict=True):
        assert np.abs(np.rot90(new, back) - old).mean() < 4  # JPEG
    for old, new in zip(before.annotations, after.annotations, strict=True):
        image = next(image for image in before.images if image["id"] == old["image_id"])
        width, height = image["width"], image["height"]
        (x, y, w, h), points = old["bbox"], np.array(old["keypoints"]).reshape(-1, 3)
        if name == "sideways":  # the right edge is the new top
            expected, moved = [y, width - x - w, h, w], np.stack([points[:, 1], width - points[:, 0]], 1)
        else:
            expected, moved = [width - x - w, height - y - h, w, h], np.array([width, height]) - points[:, :2]
        np.testing.assert_allclose(new["bbox"], expected, atol=1e-6)
        known = points[:, 2] > 0
        found = np.array(new["keypoints"]).reshape(-1, 3)
        np.testing.assert_allclose(found[known, :2], moved[known], atol=1e-6)
        np.testing.assert_array_equal(found[:, 2], points[:, 2])


def test_masks_cover_lower_halves_only(source, tmp_path):
    shift(source, tmp_path / "out", ["masked"], seed=3)
    before, after = coco.load(source, "train"), coco.load(tmp_path / "out", "train")
    for image, old, new in zip(before.images, pictures(before), pictures(after), strict=True):
        changed = np.abs(old - new).max(axis=2) > 60
        inside = np.zeros_like(changed)
        for face in before.annotations:
            if face["image_id"] == image["id"]:
                x, y, w, h = face["bbox"]
                inside[int(y + 0.4 * h) : int(y + h) + 2, int(x) : int(x + w) + 2] = True
        assert changed[inside].mean() > 0.2 and changed[~inside].mean() < 0.01


def test_shifts_follow_each_other_in_the_given_order(source, tmp_path):
    """A mask covers what is the lower half when its turn comes."""
    for number, names in enumerate((["masked", "upside_down"], ["upside_down", "masked"])):
        shift(source, tmp_path / str(number), names)
    first, second = (coco.load(tmp_path / str(number), "train") for number in range(2))
    np.testing.assert_allclose(boxes(first), boxes(second))
    assert any(np.abs(one - two).mean() > 1 for one, two in zip(pictures(first), pictures(second), strict=True))


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(source, tmp_path):
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        shift(source, tmp_path / name, ["masked", "drawn"], seed=seed)
    one, two, three = (
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.suffix in (".jpg", ".json")}
        for name in ("one", "two", "three")
    )
    assert one == two and one.keys() == three.keys() and one != three


def test_an_interrupted_run_goes_on_and_a_finished_one_is_left_alone(source, tmp_path):
    out = tmp_path / "out"
    shift(source, out, ["negative"])
    train = (out / "train.json").read_bytes()
    with pytest.raises(FolderError, match="finished run"):
        shift(source, out, ["negative"])
    (out / REPORT).unlink()
    (out / "train.json").unlink()
    with pytest.raises(FolderError):
        shift(source, out, ["sketch"])
    shift(source, out, ["negative"])
    assert (out / "train.json").read_bytes() == train


def test_wrong_names_are_refused_before_anything_is_written(source, tmp_path):
    for names, message in ((["blurred"], "no shift 'blurred'; use masked, sketch"), ([], "name a shift")):
        with pytest.raises(ShiftError, match=message):
            shift(source, tmp_path / "out", names)
    with pytest.raises(coco.AnnotationError, match="no such annotation file"):
        shift(tmp_path, tmp_path / "out", ["sketch"])
    assert not (tmp_path / "out").exists()
    ended = CliRunner().invoke(app, ["data", "shift", str(source), str(tmp_path / "out"), "--by", "blurred"])
    assert ended.exit_code == 1 and "there is no shift 'blurred'" in ended.output


def test_a_data_set_without_test_split_has_none_afterwards(source, tmp_path):
    other = make(tmp_path / "plain", "plain", images=(2, 1, 0), seed=2)
    ended = CliRunner().invoke(app, ["data", "shift", str(other), str(tmp_path / "out"), "--by", "sketch"])
    assert ended.exit_code == 0 and "Images: 2 train, 1 val." in ended.output
    assert not (tmp_path / "out" / "test.json").exists() and (tmp_path / "out" / "contact_sheet.jpg").exists()


def test_real_images_are_shifted(real_data, tmp_path):
    report = shift(real_data / "portrait_grey", tmp_path / "out", ["masked", "sideways"])
    assert report["images"]["train"] > 0
    before, after = coco.load(real_data / "portrait_grey", "val"), coco.load(tmp_path / "out", "val")
    assert after.num_boxes == before.num_boxes
