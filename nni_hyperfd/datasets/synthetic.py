"""Synthetic face data sets of clearly different domains: no download, no licence, no real person.

Faces have boxes (tight around the face from hair line to chin, without hair and ears) and five landmarks. Every picture
is drawn by its own generator, seeded with seed, domain, split and number. So the same arguments give the same files
(with the same OpenCV), and a longer split begins with the pictures of a shorter one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from nni_hyperfd import files
from nni_hyperfd.datasets import coco, drawing
from nni_hyperfd.datasets.drawing import Canvas, DrawnFace, Points, Pose
from nni_hyperfd.datasets.images import Image, save_image

VERSION = 1
"""Version of the drawings; raised whenever the same seed gives other pictures."""
SPLITS = ("train", "val", "test")

_OVERSAMPLING = 2  # canvas pixels per picture pixel along each axis, against jagged edges
_SMALLEST = 8  # px, the shorter side of a box
# Visible share of a face: below the first it is marked as `ignore`, below the second it is not annotated.
_PLAIN, _GONE = 0.4, 0.1
_OVERLAP = 0.35  # largest overlap of two faces' boxes, as a share of the smaller one
_ATTEMPTS = 20  # to place a face without too much overlap


@dataclass(frozen=True)
class Domain:
    """How the pictures of a domain are drawn.

    Attributes:
        about: description, written into the annotation files.
        background: draws the background.
        face: draws a face.
        faces: smallest and largest number of faces that are tried, inclusive; hidden ones are not replaced.
        height: smallest and largest height of a face, as a share of the picture's side.
        roll: standard deviation of a face's turn within the picture, in radians.
        things: draw things that are not faces.
        num_things: smallest and largest number of these, inclusive.
        finish: what the camera does to the picture: light, blur and noise.
        barrel: strength k of the lens's radial warp; 0 for none.
    """

    about: str
    background: Callable[[Canvas, Generator], None]
    face: drawing.FacePainter
    faces: tuple[int, int]
    height: tuple[float, float]
    roll: float
    things: tuple[drawing.ThingPainter, ...]
    num_things: tuple[int, int]
    finish: Callable[[Image, Generator], Image]
    barrel: float = 0.0


def _photograph(image: Image, rng: Generator) -> Image:
    blurred = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.9)).astype(np.float32)
    exposure = rng.uniform(0.75, 1.2) * rng.uniform(0.92, 1.08, 3)
    return _to_bytes(blurred * exposure + rng.normal(0, rng.uniform(1, 6), image.shape))


def _at_night(image: Image, rng: Generator) -> Image:
    light = image.astype(np.float32) * rng.uniform(0.3, 0.6) * rng.uniform([0.9, 0.7, 0.6], [1.2, 0.95, 1.0])
    glow = np.zeros(image.shape, np.float32)
    side = image.shape[0]
    for x, y in rng.uniform(0, side, (rng.integers(0, 5), 2)):
        cv2.circle(glow, (round(x), round(y / 4)), max(1, round(side * rng.uniform(0.01, 0.03))), (170, 220, 255), -1)
    glow += 3 * cv2.GaussianBlur(glow, (0, 0), side / 40)
    blurred = cv2.GaussianBlur(light + glow, (0, 0), rng.uniform(0.7, 1.4))
    return _to_bytes(blurred + rng.normal(0, rng.uniform(5, 12), image.shape))


def _as_drawn(image: Image, rng: Generator) -> Image:
    return image


_PHOTO_THINGS = (drawing.ball, drawing.back_of_head, drawing.hand, drawing.window, drawing.clock)

_DOMAINS = {
    "plain": Domain(
        about="people by day, a few large or middling faces before clutter",
        background=drawing.photo_background,
        face=drawing.photo_face,
        faces=(1, 4),
        height=(0.13, 0.5),
        roll=0.22,
        things=_PHOTO_THINGS,
        num_things=(1, 5),
        finish=_photograph,
    ),
    "masked_night": Domain(
        about="crowds of small masked faces in the dark, blurred and noisy",
        background=drawing.photo_background,
        face=drawing.masked_face,
        faces=(4, 12),
        height=(0.08, 0.2),
        roll=0.15,
        things=_PHOTO_THINGS,
        num_things=(2, 6),
        finish=_at_night,
    ),
    "cartoon_fisheye": Domain(
        about="large flat faces of unusual colours through a fisheye lens",
        background=drawing.cartoon_background,
        face=drawing.cartoon_face,
        faces=(1, 3),
        height=(0.24, 0.48),
        roll=0.3,
        things=(drawing.blob, drawing.flower, drawing.wheel, drawing.window),
        num_things=(1, 5),
        finish=_as_drawn,
        barrel=0.6,
    ),
}

DOMAINS: tuple[str, ...] = tuple(_DOMAINS)
"""Names of the domains."""


def make(
    folder: str | os.PathLike[str],
    domain: str,
    *,
    images: tuple[int, int, int] = (64, 32, 0),
    size: int = 160,
    seed: int = 0,
) -> Path:
    """Draw a data set, laid out as `coco.load` reads it.

    Args:
        folder: a new or empty folder.
        domain: one of `DOMAINS`.
        images: numbers of pictures in train, val and test; a split of none gets no file.
        size: width and height of the pictures in px, at least 64.
        seed: 0 or more.

    Returns:
        The folder.

    Raises:
        ValueError: an argument is out of range.
        FileExistsError: the folder is not empty.
    """
    if domain not in _DOMAINS:
        raise ValueError(f"there is no synthetic domain {domain!r}; choose one of {', '.join(DOMAINS)}.")
    if len(images) != len(SPLITS) or min(images) < 0 or sum(images) == 0:
        raise ValueError(f"images={images!r} must give three numbers of pictures, for train, val and test, not all 0.")
    if size < 64:
        raise ValueError(f"size={size} is too small to draw faces into; use at least 64 px.")
    if seed < 0:
        raise ValueError(f"seed={seed} is negative; use 0 or more.")
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty and is left as it is; name a new folder for the synthetic data.")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for split, count in zip(SPLITS, images, strict=True):
        if count:
            _make_split(folder, domain, split, count, size, seed)
    return folder


def _make_split(folder: Path, domain: str, split: str, count: int, size: int, seed: int) -> None:
    records: list[coco.Record] = []
    annotations: list[coco.Record] = []
    for number in range(1, count + 1):
        rng = np.random.default_rng([seed, number, SPLITS.index(split), *domain.encode()])
        image, faces, _ = draw(domain, size, rng)
        name = f"{split}_{number:04d}.jpg"
        save_image(folder / "images" / name, image)
        records.append({"id": number, "file_name": name, "width": size, "height": size})
        for face in faces:
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 1, **_annotation(face)})
    info = {
        "description": f"synthetic faces, not photographs: {_DOMAINS[domain].about}",
        "synthetic": True,
        "domain": domain,
        "seed": seed,
        "version": VERSION,
    }
    category = {"id": 1, "name": coco.FACE, "keypoints": ["left_eye", "right_eye", "nose", "left_mouth", "right_mouth"]}
    content = {"info": info, "images": records, "annotations": annotations, "categories": [category]}
    files.write_json(folder / f"{split}.json", content)


def _annotation(face: VisibleFace) -> coco.Record:
    """What COCO says of a face, without ids; numbers are rounded to hundredths of a pixel."""
    x, y, width, height = (round(float(value), 2) for value in face.box)
    return {
        "bbox": [x, y, width, height],
        "area": round(width * height, 2),
        "iscrowd": 0,
        "ignore": int(face.hidden),
        "keypoints": [part for u, v in face.landmarks.tolist() for part in (round(u, 2), round(v, 2), 2)],
        "num_keypoints": len(face.landmarks),
    }


@dataclass(frozen=True)
class VisibleFace:
    """A face of a finished picture.

    Attributes:
        box: (x, y, width, height) in px, clipped to the picture.
        landmarks: (5, 2) in px.
        hidden: less of it is visible than a detector should have to find.
    """

    box: Points
    landmarks: Points
    hidden: bool


def draw(domain: str, size: int, rng: Generator) -> tuple[Image, list[VisibleFace], NDArray[np.uint8]]:
    """Draw one picture, in which at least one face is not hidden.

    Coordinates are in px of the picture; (0, 0) is the upper left corner of the first pixel, not its centre.

    Args:
        domain: one of `DOMAINS`.
        size: width and height in px.
        rng: source of all randomness.

    Returns:
        The picture (size, size, 3), its faces, and for each pixel (size, size) the number of the face that is visible
        there, from 1; 0 for none.
    """
    style = _DOMAINS[domain]
    while True:
        canvas = Canvas(size * _OVERSAMPLING)
        style.background(canvas, rng)
        drawn = _populate(canvas, style, rng)
        image, labels = _through_lens(canvas, style.barrel)
        faces, numbers = _visible(drawn, labels, style.barrel)
        if not all(face.hidden for face in faces):
            image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
            return style.finish(image, rng), faces, numbers[labels[::_OVERSAMPLING, ::_OVERSAMPLING]]


def _through_lens(canvas: Canvas, barrel: float) -> tuple[Image, NDArray[np.uint8]]:
    """The canvas's image and labels as the lens shows them."""
    if not barrel:
        return canvas.image, canvas.labels
    grid, outside = _barrel_grid(canvas.side, barrel)
    image = cv2.remap(canvas.image, *grid, cv2.INTER_LINEAR)
    labels = cv2.remap(canvas.labels, *grid, cv2.INTER_NEAREST)
    image[outside], labels[outside] = 0, 0
    return image, labels


def _visible(
    drawn: Sequence[DrawnFace], labels: NDArray[np.uint8], barrel: float
) -> tuple[list[VisibleFace], NDArray[np.uint8]]:
    """The faces of which enough is visible, and for each label (256,) the number of its face among them, from 1."""
    side = labels.shape[0]
    faces: list[VisibleFace] = []
    numbers = np.zeros(256, np.uint8)
    for label, face in enumerate(drawn, start=1):
        seen = _as_seen(face, side, barrel)
        share = np.count_nonzero(labels == label) / cv2.contourArea(seen.outline.astype(np.float32))
        if share >= _GONE:
            box, landmarks = _measured(seen, side)
            faces.append(VisibleFace(box, landmarks, hidden=bool(share < _PLAIN)))
            numbers[label] = len(faces)
    return faces, numbers


def _populate(canvas: Canvas, style: Domain, rng: Generator) -> list[DrawnFace]:
    """Draw faces and other things, beginning with the smallest, which are the farthest away."""
    poses: list[tuple[Pose, drawing.ThingPainter | None]] = [(pose, None) for pose in _face_poses(canvas, style, rng)]
    for _ in range(rng.integers(style.num_things[0], style.num_things[1] + 1)):
        poses.append((_pose(canvas, style, rng), style.things[rng.integers(len(style.things))]))
    faces: list[DrawnFace] = []
    for pose, thing in sorted(poses, key=lambda item: item[0].half_height):
        if thing:
            thing(canvas, pose, rng)
        else:
            faces.append(style.face(canvas, pose, rng, len(faces) + 1))
    return faces


def _face_poses(canvas: Canvas, style: Domain, rng: Generator) -> list[Pose]:
    """Poses of faces that lie inside the picture and hardly overlap."""
    poses: list[Pose] = []
    boxes: list[Points] = []
    for _ in range(rng.integers(style.faces[0], style.faces[1] + 1)):
        for _attempt in range(_ATTEMPTS):
            pose = _pose(canvas, style, rng)
            sketch = _as_seen(_sketch(pose), canvas.side, style.barrel)
            box, landmarks = _measured(sketch, canvas.side)
            in_lens = _in_lens(sketch, canvas.side, style.barrel)
            if in_lens and _fits(box, landmarks, boxes, canvas.side / _OVERSAMPLING):
                poses.append(pose)
                boxes.append(box)
                break
    return poses


def _pose(canvas: Canvas, style: Domain, rng: Generator) -> Pose:
    low, high = (math.log(max(share * canvas.side, 14 * _OVERSAMPLING)) for share in style.height)
    half_height = math.exp(rng.uniform(low, high)) / 2
    x, y = rng.uniform(0.1 * canvas.side, 0.9 * canvas.side, 2)
    return Pose(
        x,
        y,
        half_width=half_height * rng.uniform(0.7, 0.9),
        half_height=half_height,
        roll=rng.normal(0, style.roll),
        yaw=rng.uniform(-0.45, 0.45),
        pitch=rng.uniform(-0.15, 0.2),
    )


def _sketch(pose: Pose) -> DrawnFace:
    """Outline and landmarks of a face that may be drawn at a pose; the landmarks are farther apart than a face's."""
    landmarks = [[-0.4, -0.2], [0.4, -0.2], [0, 0.25], [-0.36, 0.6], [0.36, 0.6]]
    return DrawnFace(pose.at(drawing.oval()), pose.on_head(landmarks))


def _fits(box: Points, landmarks: Points, others: list[Points], size: float) -> bool:
    """Whether a face is large enough, inside the picture of `size` px, and apart from the boxes of others."""
    if min(box[2:]) < _SMALLEST + 1 or landmarks.min() < 1 or landmarks.max() > size - 1:
        return False
    for other in others:
        low, high = np.maximum(box[:2], other[:2]), np.minimum(box[:2] + box[2:], other[:2] + other[2:])
        if np.prod(np.clip(high - low, 0, None)) > _OVERLAP * min(np.prod(box[2:]), np.prod(other[2:])):
            return False
    return True


def _as_seen(face: DrawnFace, side: int, barrel: float) -> DrawnFace:
    """A face as the lens shows it, in canvas px; its outline is cut off where the lens ends."""
    if not barrel:
        return face
    outline = _warped(face.outline, side, barrel)
    reach = np.linalg.norm(outline - (side - 1) / 2, axis=1, keepdims=True) / (side / 2)
    cut = np.minimum(1, _LENS / reach.clip(1e-9))
    outline = (outline - (side - 1) / 2) * cut + (side - 1) / 2
    return DrawnFace(outline, _warped(face.landmarks, side, barrel))


def _in_lens(face: DrawnFace, side: int, barrel: float) -> bool:
    """Whether all landmarks are inside the visible circle of the lens."""
    reach = np.linalg.norm(face.landmarks - (side - 1) / 2, axis=1) / (side / 2)
    return not barrel or bool(reach.max() < _LENS)


def _measured(face: DrawnFace, side: int) -> tuple[Points, Points]:
    """Box (x, y, width, height), clipped to the picture, and landmarks (5, 2), both in px of the picture."""
    # OpenCV's integer coordinates are the centres of pixels.
    outline = np.clip((face.outline + 0.5) / _OVERSAMPLING, 0, side / _OVERSAMPLING)
    low, high = outline.min(axis=0), outline.max(axis=0)
    return np.concatenate([low, high - low]), (face.landmarks + 0.5) / _OVERSAMPLING


# The barrel warp, around the centre and in units of half the side: what is visible at radius r is on the canvas at
# r (1 + k r^2) / (1 + k R^2). R is where the lens ends; pictures are black beyond it.
_LENS = 1.14


@lru_cache(maxsize=4)
def _barrel_grid(side: int, k: float) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]], NDArray[np.bool_]]:
    """The maps (side, side) of x and of y for cv2.remap, and which pixels (side, side) are outside the lens."""
    middle = (side - 1) / 2
    x, y = np.meshgrid((np.arange(side) - middle) / (side / 2), (np.arange(side) - middle) / (side / 2))
    squared = x**2 + y**2
    stretch = (1 + k * squared) / (1 + k * _LENS**2) * (side / 2)
    grid = (x * stretch + middle).astype(np.float32), (y * stretch + middle).astype(np.float32)
    return grid, squared > _LENS**2


def _warped(points: Points, side: int, k: float) -> Points:
    """Where points (n, 2) of the canvas are visible: solves r + k r^3 = radius (1 + k R^2) by Cardano's formula."""
    middle = (side - 1) / 2
    offset = (points - middle) / (side / 2)
    radius = np.linalg.norm(offset, axis=1, keepdims=True)
    half = radius * (1 + k * _LENS**2) / (2 * k)
    root = np.sqrt(half**2 + 1 / (3 * k) ** 3)
    seen = np.cbrt(half + root) + np.cbrt(half - root)
    stretch = np.divide(seen, radius, out=np.ones_like(seen), where=radius > 0)
    warped: Points = offset * stretch * (side / 2) + middle
    return warped


def _to_bytes(image: NDArray[np.float32]) -> Image:
    return np.clip(image, 0, 255).astype(np.uint8)
