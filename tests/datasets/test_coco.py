"""Defective annotation files, really written: what is refused, what is repaired, what comes through untouched."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nni_hyperfd.datasets import AnnotationError, AnnotationWarning, FewFacesWarning, join, load

LANDMARKS = [20, 20, 2, 35, 20, 2, 28, 30, 1, 22, 40, 2, 34, 0, 0]


def sound() -> dict:
    """Two images; three faces, of which one is a crowd."""
    return {
        "info": {"year": 2026},
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 100, "height": 80, "source": "elsewhere"},
            {"id": 5, "file_name": "b.png", "width": 64, "height": 64},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 30, 40], "area": 1200, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [50, 5, 20.5, 30], "area": 615, "iscrowd": 1},
            {"id": 7, "image_id": 5, "category_id": 1, "bbox": [0, 0, 64, 64], "area": 4096, "iscrowd": 0},
        ],
        "categories": [{"id": 1, "name": "face"}],
    }


def write(folder: Path, data: object, split: str = "train") -> Path:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "images" / "a.jpg")
    Image.fromarray(noise[:64, :64]).save(folder / "images" / "b.png")
    (folder / f"{split}.json").write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return folder


def changed(*keys_and_value: object) -> dict:
    """The sound data with one value, found by its keys, replaced; removed if the value is the class ``object``."""
    *keys, last, value = keys_and_value
    data = sound()
    place = data
    for key in keys:
        place = place[key]
    if value is object:
        del place[last]
    else:
        place[last] = value
    return data


def with_box(box: object) -> dict:
    return changed("annotations", 0, "bbox", box)


def doubled(kind: str) -> dict:
    data = sound()
    data[kind].append(copy.deepcopy(data[kind][0]))
    return data


def file_twice() -> dict:
    return changed("images", 1, {"id": 5, "file_name": "a.jpg", "width": 100, "height": 80})


def only_crowd() -> dict:
    data = sound()
    data["annotations"] = data["annotations"][1:2]
    return data


REFUSED = {
    "empty": ("", ["train.json", "is empty"]),
    "not json": ('{"images": [', ["train.json", "is not json"]),
    "deeply nested": ("[" * 100_000, ["is not json"]),
    "a list": ([], ["is not COCO", "'images'"]),
    "no annotations key": (changed("annotations", object), ["is not COCO", "'annotations'"]),
    "annotations not records": (changed("annotations", [1, 2]), ["is not COCO", "'annotations'"]),
    "no category": (changed("categories", []), ["'face'", "but hold none", "rename"]),
    "wrong case": (changed("categories", 0, "name", "Face"), ["'face' (in lower case)", "'Face'"]),
    "other names": (changed("categories", [{"id": 1, "name": "head"}, {"id": 2, "name": "car"}]), ["'head', 'car'"]),
    "two face categories": (changed("categories", [{"id": 1, "name": "face"}, {"id": 2, "name": "face"}]), ["once"]),
    "category without id": (changed("categories", 0, "id", object), ["category number 1", "None"]),
    "unknown category": (changed("annotations", 2, "category_id", 3), ["annotation 7", "unknown category 3", "use 1"]),
    "odd category": (changed("annotations", 2, "category_id", [1]), ["annotation 7", "unknown category [1]"]),
    "no category id": (changed("annotations", 2, "category_id", object), ["annotation 7", "unknown category None"]),
    "unknown image": (changed("annotations", 2, "image_id", 2), ["annotation 7", "unknown image 2"]),
    "odd image": (changed("annotations", 2, "image_id", {}), ["annotation 7", "unknown image {}"]),
    "image id twice": (doubled("images"), ["image 1 occurs more than once"]),
    "annotation id twice": (doubled("annotations"), ["annotation 1 occurs more than once"]),
    "image id a string": (changed("images", 0, "id", "1"), ["image number 1", "'1'"]),
    "annotation id missing": (changed("annotations", 1, "id", object), ["annotation number 2", "None"]),
    "file twice": (file_twice(), ["image 5", "same file as image 1"]),
    "bbox missing": (changed("annotations", 0, "bbox", object), ["annotation 1", "None", "four finite numbers"]),
    "bbox of strings": (with_box(["1", "2", "3", "4"]), ["annotation 1", "four finite numbers"]),
    "bbox of three": (with_box([1, 2, 3]), ["annotation 1", "[1, 2, 3]", "four finite numbers"]),
    "bbox with NaN": (with_box([1, 2, float("nan"), 4]), ["annotation 1", "nan", "four finite numbers"]),
    "bbox with infinity": (with_box([1, 2, float("inf"), 4]), ["annotation 1", "inf", "four finite numbers"]),
    "bbox beyond floats": (with_box([1, 2, 10**400, 4]), ["annotation 1", "four finite numbers"]),
    "bbox of booleans": (with_box([True, True, True, True]), ["annotation 1", "four finite numbers"]),
    "bbox a record": (with_box({"x": 1}), ["annotation 1", "four finite numbers"]),
    "zero width": (with_box([1, 2, 0, 4]), ["annotation 1", "of no area"]),
    "negative height": (with_box([1, 2, 3, -4]), ["annotation 1", "of no area"]),
    "outside": (with_box([100, 2, 30, 40]), ["annotation 1", "wholly outside", "100 x 80"]),
    "outside above": (with_box([1, -40, 30, 40]), ["annotation 1", "wholly outside"]),
    "iscrowd a string": (changed("annotations", 0, "iscrowd", "no"), ["annotation 1", "iscrowd 'no'", "use 0 or 1"]),
    "no level of WIDER": (changed("annotations", 0, "wider_level", "Easy"), ["annotation 1", "'Easy'", "easy, medium"]),
    "ignore of two": (changed("annotations", 0, "ignore", 2), ["annotation 1", "ignore 2"]),
    "file missing": (changed("images", 1, "file_name", "c.png"), ["image 5", "no file c.png", "images"]),
    "no file name": (changed("images", 1, "file_name", object), ["image 5", "file name None"]),
    "zero byte in name": (changed("images", 1, "file_name", "a\0.jpg"), ["image 5", "no file"]),
    "out of the folder": (changed("images", 1, "file_name", "../../b.png"), ["image 5", "leads out of the data set"]),
    "out by backslash": (changed("images", 1, "file_name", "..\\b.png"), ["image 5", "leads out of the data set"]),
    "absolute": (changed("images", 1, "file_name", "/b.png"), ["image 5", "absolute"]),
    "drive": (changed("images", 1, "file_name", "C:\\b.png"), ["image 5", "absolute"]),
    "wrong width": (changed("images", 1, "width", 65), ["image 5 (b.png)", "65 x 64", "64 x 64"]),
    "no height": (changed("images", 1, "height", object), ["image 5 (b.png)", "64 x None", "64 x 64"]),
    "no boxes": (changed("annotations", []), ["none of its 2 images", "'face'"]),
    "no images": ({"images": [], "annotations": [], "categories": [{"id": 1, "name": "face"}]}, ["none of its 0"]),
    "only a crowd": (only_crowd(), ["none of its 2 images"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_defect_is_refused_with_one_sentence(tmp_path, case):
    data, fragments = REFUSED[case]
    write(tmp_path, data)
    with pytest.raises(AnnotationError) as caught:
        load(tmp_path, "train")
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "train.json"))
    assert [fragment for fragment in fragments if fragment not in message] == []
    assert message.endswith(".") and "\n" not in message


@pytest.mark.parametrize("name", ["a.jpg", "b.png"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.95])
def test_cut_off_image_is_refused(tmp_path, name, kept):
    write(tmp_path, sound())
    path = tmp_path / "images" / name
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(AnnotationError, match=rf"image . \({name}\) cannot be decoded .*{name} again as JPEG"):
        load(tmp_path, "train")


def test_text_in_place_of_an_image_is_refused(tmp_path):
    write(tmp_path, sound())
    (tmp_path / "images" / "b.png").write_text("<html>404</html>")
    with pytest.raises(AnnotationError, match="cannot identify image file"):
        load(tmp_path, "train")


def test_absent_split_names_those_there_are(tmp_path):
    write(tmp_path, sound())
    with pytest.raises(AnnotationError, match=r"val\.json: there is no .* \(.*: train\)"):
        load(tmp_path, "val")
    with pytest.raises(AnnotationError, match=r"no such annotation file \(.*: none\)"):
        load(tmp_path / "elsewhere", "train")


def test_not_utf8_is_refused(tmp_path):
    write(tmp_path, sound())
    (tmp_path / "train.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AnnotationError, match="cannot be read as text"):
        load(tmp_path, "train")


def test_sound_split_comes_through_untouched_and_silent(tmp_path):
    write(tmp_path, sound())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split = load(tmp_path, "train", strict=True)
    assert (split.num_images, split.num_boxes) == (2, 2)
    assert split.images[0] == {"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}
    assert split.annotations == [{**annotation, "ignore": 0} for annotation in sound()["annotations"]]
    assert split.image_path(split.images[1]) == tmp_path / "images" / "b.png"


def without(key: str) -> dict:
    return changed("annotations", 0, key, object)


def person_too() -> dict:
    data = sound()
    data["categories"].append({"id": 2, "name": "person"})
    data["annotations"][1]["category_id"] = 2
    return data


# data; the warning; what annotation 1 then says (None: it is gone)
REPAIRED = {
    "partly outside": (with_box([-10, 70, 30, 40]), "outside its image", {"bbox": [0, 70, 20, 10], "area": 200}),
    "outside to the right": (with_box([90.5, 10, 30, 40]), "outside its image", {"bbox": [90.5, 10, 9.5, 40]}),
    "no area": (without("area"), "no valid 'area'", {"area": 1200}),
    "area of zero": (changed("annotations", 0, "area", 0), "no valid 'area'", {"area": 1200}),
    "area NaN": (changed("annotations", 0, "area", float("nan")), "no valid 'area'", {"area": 1200}),
    "no iscrowd": (without("iscrowd"), "no 'iscrowd'", {"iscrowd": 0}),
    "id 0": (changed("annotations", 0, "id", 0), "no match", {"id": 8}),
    "keypoints of a body": (changed("annotations", 0, "keypoints", [1] * 51), "5 x (x, y, 0 to 2)", {}),
    "keypoints NaN": (changed("annotations", 0, "keypoints", [float("nan")] * 15), "5 x (x, y, 0 to 2)", {}),
    "keypoints text": (changed("annotations", 0, "keypoints", "eyes"), "5 x (x, y, 0 to 2)", {}),
    "keypoints visibility": (changed("annotations", 0, "keypoints", [3] * 15), "5 x (x, y, 0 to 2)", {}),
}


@pytest.mark.parametrize("case", REPAIRED)
def test_repair_warns_once_and_is_an_error_when_strict(tmp_path, case):
    data, reason, expected = REPAIRED[case]
    write(tmp_path, data)
    with pytest.warns(AnnotationWarning) as caught:
        split = load(tmp_path, "train")
    (warning,) = caught
    assert reason in str(warning.message) and "1 x" in str(warning.message)
    assert warning.filename == __file__
    assert {key: split.annotations[0][key] for key in expected} == expected
    assert "keypoints" not in split.annotations[0]
    number = data["annotations"][0]["id"]
    with pytest.raises(AnnotationError, match=rf"train\.json: annotation {number} .*load without strict") as refused:
        load(tmp_path, "train", strict=True)
    assert reason in str(refused.value)


def test_boxes_of_other_categories_are_left_out(tmp_path):
    write(tmp_path, person_too())
    with pytest.warns(AnnotationWarning, match="1 x 'is of another category than 'face'', left out"):
        split = load(tmp_path, "train")
    assert [annotation["id"] for annotation in split.annotations] == [1, 7]
    assert split.category == {"id": 1, "name": "face"}
    with pytest.raises(AnnotationError, match="annotation 2"):
        load(tmp_path, "train", strict=True)


def test_a_box_thinner_than_a_pixel_is_ignored(tmp_path):
    data = with_box([10, 10, 0.5, 40])
    data["annotations"][1]["iscrowd"] = 0
    write(tmp_path, data)
    with pytest.warns(AnnotationWarning, match="1 x 'is thinner than one pixel', marked as 'ignore'"):
        split = load(tmp_path, "train")
    assert split.annotations[0]["ignore"] == 1
    assert split.num_boxes == 2
    with pytest.raises(AnnotationError, match="annotation 1 is thinner"):
        load(tmp_path, "train", strict=True)


def test_repairs_of_one_kind_make_one_counted_warning(tmp_path):
    data = sound()
    for annotation in data["annotations"]:
        del annotation["area"], annotation["iscrowd"]
    write(tmp_path, data)
    with pytest.warns(AnnotationWarning) as caught:
        load(tmp_path, "train")
    assert sorted(str(warning.message).split(": ")[1][:5] for warning in caught) == ["3 x '", "3 x '"]
    assert all("first: annotation 1" in str(warning.message) for warning in caught)


def test_a_hundredth_of_a_pixel_outside_is_clipped_without_a_word(tmp_path):
    write(tmp_path, with_box([70, 40, 30.004, 40.004]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split = load(tmp_path, "train", strict=True)
    assert split.annotations[0]["bbox"] == [70, 40, 30, 40]


def test_images_without_faces_go_from_training_and_stay_as_negatives_elsewhere(tmp_path):
    data = sound()
    del data["annotations"][2]
    write(tmp_path, data)
    write(tmp_path, data, "val")
    with pytest.warns(AnnotationWarning, match="1 x 'has no face to train on', left out .first: image 5.") as caught:
        train = load(tmp_path, "train")
    assert len(caught) == 1
    assert [image["id"] for image in train.images] == [1]
    with pytest.warns(FewFacesWarning) as caught:
        val = load(tmp_path, "val", strict=True)
    assert len(caught) == 1
    assert [image["id"] for image in val.images] == [1, 5]
    with pytest.raises(AnnotationError, match="image 5 has no face"):
        load(tmp_path, "train", strict=True)


def test_ignored_boxes_stay_but_do_not_count(tmp_path):
    data = sound()
    data["annotations"].append({**data["annotations"][0], "id": 9, "ignore": 1})
    split = load(write(tmp_path, data), "train")
    assert (len(split.annotations), split.num_boxes) == (4, 2)


def test_landmarks_are_kept_and_counted(tmp_path):
    split = load(write(tmp_path, changed("annotations", 0, "keypoints", LANDMARKS)), "train")
    assert split.annotations[0]["keypoints"] == LANDMARKS
    assert split.annotations[0]["num_keypoints"] == 4


def test_size_is_that_after_exif_rotation(tmp_path):
    write(tmp_path, sound())
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 100)).save(tmp_path / "images" / "a.jpg", exif=exif)
    assert load(tmp_path, "train").images[0]["width"] == 100
    Image.new("RGB", (100, 80)).save(tmp_path / "images" / "a.jpg", exif=exif)
    with pytest.raises(AnnotationError, match="said to be 100 x 80 px, but its file is 80 x 100"):
        load(tmp_path, "train")


@pytest.mark.parametrize("place", [".", "train", "images/deep"])
def test_images_may_lie_elsewhere(tmp_path, place):
    write(tmp_path, sound() if place != "images/deep" else changed("images", 0, "file_name", "deep/a.jpg"))
    (tmp_path / place).mkdir(exist_ok=True)
    shutil.move(tmp_path / "images" / "a.jpg", tmp_path / place / "a.jpg")
    split = load(tmp_path, "train")
    assert split.image_path(split.images[0]) == tmp_path / place / "a.jpg"


def test_image_gone_after_loading(tmp_path):
    split = load(write(tmp_path, sound()), "train")
    (tmp_path / "images" / "a.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.jpg is gone"):
        split.image_path(split.images[0])


def test_written_file_is_what_mmdet_reads(tmp_path, monkeypatch):
    coco_dataset = pytest.importorskip("pycocotools.coco").COCO
    monkeypatch.chdir(tmp_path)
    write(Path("set"), with_box([-10, 70, 30, 40]))
    with pytest.warns(AnnotationWarning):
        split = load("set", "train")
    split.write("checked.json")
    read = coco_dataset("checked.json")
    assert read.getCatIds(catNms=["face"]) == [1]
    assert read.anns[1]["bbox"] == [0, 70, 20, 10]
    monkeypatch.chdir("/")
    assert Image.open(Path("images") / read.imgs[1]["file_name"]).size == (100, 80)


def test_joined_splits_are_one(tmp_path):
    other = sound()
    other["categories"][0]["id"] = 3
    for annotation in other["annotations"]:
        annotation["category_id"] = 3
    parts = [load(write(tmp_path / name, data), "train") for name, data in (("a", sound()), ("b", other))]
    assert join(parts[:1]) is parts[0]
    joined = join(parts)
    assert [image["id"] for image in joined.images] == [1, 2, 3, 4]
    assert [(a["id"], a["image_id"]) for a in joined.annotations] == [(1, 1), (2, 1), (3, 2), (4, 3), (5, 3), (6, 4)]
    assert {a["category_id"] for a in joined.annotations} == {1} and joined.num_boxes == 4
    found = [joined.image_path(image) for image in joined.images]
    assert found == [part.image_path(image) for part in parts for image in part.images]


def test_fingerprint_follows_the_content_and_not_the_place(tmp_path):
    first = load(write(tmp_path / "first", sound()), "train").fingerprint()
    assert len(first) == 64
    assert load(write(tmp_path / "second", sound()), "train").fingerprint() == first
    moved = load(write(tmp_path / "third", with_box([10, 10, 30, 41])), "train")
    assert moved.fingerprint() != first
    repainted = load(write(tmp_path / "fourth", sound()), "train")
    Image.new("RGB", (64, 64)).save(tmp_path / "fourth" / "images" / "b.png")
    assert repainted.fingerprint() != first


def test_importing_the_package_loads_neither_opencv_nor_torch():
    code = (
        "import sys, nni_hyperfd.datasets as d; assert 'make' in dir(d) and 'load' in d.__all__;"
        "assert not {'cv2', 'torch', 'numpy', 'PIL'} & set(sys.modules), sys.modules.keys();"
        "d.AnnotationError; assert not {'cv2', 'torch'} & set(sys.modules)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_unknown_name_is_an_attribute_error():
    import nni_hyperfd.datasets

    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        nni_hyperfd.datasets.lod  # noqa: B018


@pytest.mark.filterwarnings("ignore::nni_hyperfd.datasets.coco.AnnotationWarning")
def test_real_data_sets_load(real_data):
    folders = sorted(path.parent for path in real_data.glob("*/train.json"))
    assert folders
    for folder in folders:
        for split in ("train", "val"):
            loaded = load(folder, split)
            records = json.loads((folder / f"{split}.json").read_text())
            usable = [a for a in records["annotations"] if not a["iscrowd"] and not a.get("ignore")]
            assert loaded.num_boxes == len(usable) > 0
            assert 0.9 * len(records["images"]) <= loaded.num_images <= len(records["images"])
