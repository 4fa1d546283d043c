"""The synthetic domains: same seed same files, boxes that fit what is drawn, domains that differ."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from nni_hyperfd.datasets import DOMAINS, coco, make, synthetic
from nni_hyperfd.datasets.drawing import Canvas

SIZE = 160


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("synthetic")
    return {domain: make(root / domain, domain, images=(24, 4, 2), size=SIZE, seed=3) for domain in DOMAINS}


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_split_passes_the_strict_check(made, domain):
    for split, count in zip(("train", "val", "test"), (24, 4, 2), strict=True):
        loaded = coco.load(made[domain], split, strict=True)
        assert loaded.num_images == count
        assert loaded.num_boxes >= count
        assert {(image["width"], image["height"]) for image in loaded.images} == {(SIZE, SIZE)}
    info = json.loads((made[domain] / "train.json").read_text())["info"]
    assert info["synthetic"] is True
    assert (info["domain"], info["seed"], info["version"]) == (domain, 3, synthetic.VERSION)


@pytest.mark.parametrize("domain", DOMAINS)
def test_same_arguments_same_bytes(made, domain, tmp_path):
    again = make(tmp_path / "again", domain, images=(24, 4, 2), size=SIZE, seed=3)
    assert digests(again) == digests(made[domain])


def test_another_seed_gives_other_pictures_and_a_longer_split_begins_alike(made, tmp_path):
    first = digests(made["plain"])
    other = digests(make(tmp_path / "other", "plain", images=(2, 0, 0), size=SIZE, seed=4))
    longer = digests(make(tmp_path / "longer", "plain", images=(26, 0, 0), size=SIZE, seed=3))
    pictures = [name for name in first if name.startswith("images/train")]
    assert len(pictures) == 24
    assert all(first[name] == longer[name] for name in pictures)
    assert first["images/train_0001.jpg"] not in other.values()
    assert len({first[name] for name in first}) == len(first)
    assert "val.json" not in longer


@pytest.mark.parametrize("domain", DOMAINS)
def test_boxes_hold_their_landmarks_and_are_large_enough(made, domain):
    annotations = coco.load(made[domain], "train").annotations
    for annotation in annotations:
        x, y, width, height = annotation["bbox"]
        points = np.reshape(annotation["keypoints"], (5, 3))
        assert min(width, height) >= 8
        assert (points[:, 2] == 2).all()
        assert (points[:, :2] > [x, y]).all() and (points[:, :2] < [x + width, y + height]).all()
        left_eye, right_eye, nose, left_mouth, right_mouth = points[:, :2]
        down = (left_mouth + right_mouth) - (left_eye + right_eye)
        right = (right_eye - left_eye) + (right_mouth - left_mouth)
        assert right[0] * down[1] - right[1] * down[0] > 0  # not mirrored
        assert (nose - left_eye) @ down > 0


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("size", [96, 160])
def test_boxes_fit_the_pixels_that_were_drawn(domain, size):
    """Single faces, wherever they fall: the label picture is warped pixel by pixel, the box by a formula."""
    style = synthetic._DOMAINS[domain]
    errors = []
    for number in range(40):
        rng = np.random.default_rng(number)
        canvas = Canvas(2 * size)
        face = style.face(canvas, synthetic._pose(canvas, style, rng), rng, 1)
        labels = canvas.labels
        if style.barrel:
            grid, outside = synthetic._barrel_grid(canvas.side, style.barrel)
            labels = cv2.remap(labels, *grid, cv2.INTER_NEAREST)
            labels[outside] = 0
        rows, columns = np.nonzero(labels)
        seen = synthetic._as_seen(face, canvas.side, style.barrel)
        x, y, width, height = synthetic._measured(seen, canvas.side)[0]
        drawn = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 2
        errors.append(np.abs(drawn - [x, y, x + width, y + height]).max())
    assert np.mean(errors) < 0.7 and max(errors) < 2


@pytest.mark.parametrize("domain", DOMAINS)
def test_no_face_is_seen_outside_its_box(domain):
    for number in range(20):
        image, faces, labels = synthetic.draw(domain, SIZE, np.random.default_rng(number))
        assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8
        assert set(np.unique(labels)) - {0} == set(range(1, len(faces) + 1))
        for index, face in enumerate(faces, start=1):
            rows, columns = np.nonzero(labels == index)
            low, high = face.box[:2], face.box[:2] + face.box[2:]
            assert ([columns.min(), rows.min()] > low - 1.5).all()
            assert ([columns.max() + 1, rows.max() + 1] < high + 1.5).all()


def test_hidden_faces_are_those_of_which_little_is_seen():
    shares = {True: [], False: []}
    for number in range(40):
        _, faces, labels = synthetic.draw("plain", SIZE, np.random.default_rng(number))
        assert not all(face.hidden for face in faces)
        for index, face in enumerate(faces, start=1):
            inside = 2 < face.box[0] and face.box[0] + face.box[2] < SIZE - 2
            if inside and 2 < face.box[1] and face.box[1] + face.box[3] < SIZE - 2:
                shares[face.hidden].append((labels == index).sum() / face.box[2:].prod())
    assert shares[True] and shares[False]
    assert max(shares[True]) < 0.4 and min(shares[False]) > 0.2


def test_barrel_warp_of_points_undoes_that_of_pixels():
    side, k = 101, 0.6
    (map_x, map_y), _ = synthetic._barrel_grid(side, k)
    seen = np.array([[50, 50], [50, 10], [80, 70], [3, 50], [20, 85]])
    canvas = np.stack([map_x[seen[:, 1], seen[:, 0]], map_y[seen[:, 1], seen[:, 0]]], axis=1).astype(float)
    np.testing.assert_allclose(synthetic._warped(canvas, side, k), seen, atol=1e-3)
    assert np.linalg.norm(canvas[1] - canvas[0]) < 40  # the middle is magnified


def measures(folder: Path) -> dict[str, float]:
    data = coco.load(folder, "train")
    pictures = [cv2.imread(str(data.image_path(image)), cv2.IMREAD_GRAYSCALE) for image in data.images]
    smoothed = [cv2.GaussianBlur(picture, (0, 0), 1) for picture in pictures]
    boxes = np.array([a["bbox"] for a in data.annotations if not a["ignore"]])
    return {
        "brightness": float(np.mean([picture.mean() for picture in pictures])),
        "edges": float(np.median([cv2.Laplacian(picture, cv2.CV_32F).var() for picture in smoothed])),
        "faces per image": data.num_boxes / data.num_images,
        "face size": float(np.sqrt(boxes[:, 2] * boxes[:, 3]).mean()),
    }


def test_domains_differ_measurably(made):
    plain, night, cartoon = (measures(made[domain]) for domain in ("plain", "masked_night", "cartoon_fisheye"))
    assert night["brightness"] < 0.7 * min(plain["brightness"], cartoon["brightness"])
    assert night["faces per image"] > 2 * max(plain["faces per image"], cartoon["faces per image"])
    assert 1.4 * night["face size"] < plain["face size"] < cartoon["face size"] / 1.2
    assert 1.5 * night["edges"] < plain["edges"] < cartoon["edges"] / 3


def test_small_pictures_still_hold_faces_of_eight_pixels(tmp_path):
    data = coco.load(make(tmp_path / "small", "masked_night", images=(6, 0, 0), size=64), "train", strict=True)
    assert min(min(annotation["bbox"][2:]) for annotation in data.annotations) >= 8


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"domain": "plane"}, "'plane'; choose one of plain, masked_night, cartoon_fisheye"),
        ({"images": (0, 0, 0)}, "not all 0"),
        ({"images": (3, -1, 0)}, "(3, -1, 0)"),
        ({"images": (3, 1)}, "three numbers"),
        ({"size": 63}, "at least 64"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_arguments_out_of_range(tmp_path, changes, fragment):
    arguments = {"folder": tmp_path / "new", "domain": "plain", "images": (1, 0, 0), **changes}
    with pytest.raises(ValueError) as caught:
        make(**arguments)
    assert fragment in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_a_folder_in_use_is_left_as_it_is(tmp_path):
    (tmp_path / "train.json").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        make(tmp_path, "plain", images=(1, 0, 0))
    assert (tmp_path / "train.json").read_text() == "mine"
