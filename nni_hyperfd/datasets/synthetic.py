"""Synthetic face data sets of clearly different domains: no download, no licence, no real person.

Faces carry boxes (tight around the face from hair line to chin, without hair and ears) and five landmarks. Every
picture is drawn by its own generator, seeded with seed, domain, split and number, so the same arguments give the same
files (with the same OpenCV) and a longer split begins with the pictures of a shorter one.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from nni_hyperfd.datasets import coco, drawing
from nni_hyperfd.datasets.drawing import Canvas, Face, Points, Pose

VERSION = 1  # of the drawings: raise it whenever the same seed gives other pictures
SPLITS = ("train", "val", "test")

_OVERSAMPLING = 2  # canvas pixels per image pixel and axis, against jagged edges
_SMALLEST = 8  # px, the shorter side of a box
_PLAIN, _GONE = 0.4, 0.1  # share of a face that is seen: below the first it is to be ignored, below the second no face
_OVERLAP = 0.35  # of two faces' boxes, as a share of the smaller one

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Domain:
    """How the pictures of a domain come about; ranges are inclusive, heights are shares of the picture's side."""

    about: str
    background: Callable[[Canvas, Generator], None]
    face: drawing.FacePainter
    faces: tuple[int, int]  # as many as are tried; hidden ones do not count
    height: tuple[float, float]
    roll: float  # radians, standard deviation
    things: tuple[drawing.ThingPainter, ...]
    num_things: tuple[int, int]
    finish: Callable[[Image, Generator], Image]
    barrel: float = 0.0  # strength k of the radial warp, 0: none


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


def make(
    folder: str | os.PathLike[str],
    domain: str,
    *,
    images: tuple[int, int, int] = (64, 32, 0),
    size: int = 160,
    seed: int = 0,
) -> Path:
    """Draw a data set into a new or empty ``folder``, laid out as ``coco.load`` reads it; returns the folder.

    ``images``: number of pictures in train, val and test (no file for a split of none); ``size``: their side in px, at
    least 64. Raises ValueError for arguments out of range, FileExistsError if the folder holds anything.
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
    records, annotations = [], []
    for number in range(1, count + 1):
        rng = np.random.default_rng([seed, number, SPLITS.index(split), *domain.encode()])
        image, faces, _ = draw(domain, size, rng)
        name = f"{split}_{number:04d}.jpg"
        _save(folder / "images" / name, image)
        records.append({"id": number, "file_name": name, "width": size, "height": size})
        for face in faces:
            x, y, width, height = (round(float(value), 2) for value in face.box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [x, y, width, height],
                    "area": round(width * height, 2),
                    "iscrowd": 0,
                    "ignore": int(face.hidden),
                    "keypoints": [part for u, v in face.landmarks.tolist() for part in (round(u, 2), round(v, 2), 2)],
                    "num_keypoints": len(face.landmarks),
                }
            )
    info = {
        "description": f"synthetic faces, not photographs: {_DOMAINS[domain].about}",
        "synthetic": True,
        "domain": domain,
        "seed": seed,
        "version": VERSION,
    }
    category = {"id": 1, "name": coco.FACE, "keypoints": ["left_eye", "right_eye", "nose", "left_mouth", "right_mouth"]}
    data = {"info": info, "images": records, "annotations": annotations, "categories": [category]}
    (folder / f"{split}.json").write_text(json.dumps(data, indent=1), encoding="utf-8")


@dataclass(frozen=True)
class Shown:
    """A face of a finished picture: box (x, y, w, h), landmarks (5, 2), and whether most of it is hidden."""

    box: Points
    landmarks: Points
    hidden: bool


def draw(domain: str, size: int, rng: Generator) -> tuple[Image, list[Shown], NDArray[np.uint8]]:
    """One picture (size, size, 3), its faces, and (size, size) the number of the face that is seen (1: the first).

    At least one face is not hidden. Coordinates are in px of the picture; (0, 0) is the upper left corner of the first
    pixel, not its centre.
    """
    style = _DOMAINS[domain]
    while True:
        canvas = Canvas(size * _OVERSAMPLING)
        style.background(canvas, rng)
        drawn = _populate(canvas, style, rng)
        image, labels = canvas.image, canvas.labels
        if style.barrel:
            grid, outside = _barrel_grid(canvas.side, style.barrel)
            image = cv2.remap(image, *grid, cv2.INTER_LINEAR)
            labels = cv2.remap(labels, *grid, cv2.INTER_NEAREST)
            image[outside], labels[outside] = 0, 0
        faces, numbers = [], np.zeros(256, np.uint8)
        for number, face in enumerate(drawn, start=1):
            seen = _as_seen(face, canvas.side, style.barrel)
            share = np.count_nonzero(labels == number) / cv2.contourArea(seen.outline.astype(np.float32))
            if share >= _GONE:
                faces.append(Shown(*_measured(seen, canvas.side), hidden=bool(share < _PLAIN)))
                numbers[number] = len(faces)
        if not all(face.hidden for face in faces):
            image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
            return style.finish(image, rng), faces, numbers[labels[::_OVERSAMPLING, ::_OVERSAMPLING]]


def _populate(canvas: Canvas, style: Domain, rng: Generator) -> list[Face]:
    """Draw faces and other things, the small ones, which are farther away, first."""
    poses: list[tuple[Pose, drawing.ThingPainter | None]] = []
    boxes: list[Points] = []
    for _ in range(rng.integers(style.faces[0], style.faces[1] + 1)):
        for _attempt in range(20):
            pose = _pose(canvas, style, rng)
            sketch = _as_seen(_sketch(pose), canvas.side, style.barrel)
            box, landmarks = _measured(sketch, canvas.side)
            in_lens = _in_lens(sketch, canvas.side, style.barrel)
            if in_lens and _fits(box, landmarks, boxes, canvas.side / _OVERSAMPLING):
                poses.append((pose, None))
                boxes.append(box)
                break
    for _ in range(rng.integers(style.num_things[0], style.num_things[1] + 1)):
        poses.append((_pose(canvas, style, rng), style.things[rng.integers(len(style.things))]))
    faces: list[Face] = []
    for pose, thing in sorted(poses, key=lambda item: item[0].half_height):
        if thing:
            thing(canvas, pose, rng)
        else:
            faces.append(style.face(canvas, pose, rng, len(faces) + 1))
    return faces


def _pose(canvas: Canvas, style: Domain, rng: Generator) -> Pose:
    low, high = (math.log(max(share * canvas.side, 14 * _OVERSAMPLING)) for share in style.height)
    half_height = math.exp(rng.uniform(low, high)) / 2
    return Pose(
        *rng.uniform(0.1 * canvas.side, 0.9 * canvas.side, 2),
        half_width=half_height * rng.uniform(0.7, 0.9),
        half_height=half_height,
        roll=rng.normal(0, style.roll),
        yaw=rng.uniform(-0.45, 0.45),
        pitch=rng.uniform(-0.15, 0.2),
    )


def _sketch(pose: Pose) -> Face:
    """The face that may come to lie at a pose, before it is drawn: its outline, and landmarks a bit wide."""
    landmarks = [[-0.4, -0.2], [0.4, -0.2], [0, 0.25], [-0.36, 0.6], [0.36, 0.6]]
    return Face(pose.at(drawing.oval()), pose.on_head(landmarks))


def _fits(box: Points, landmarks: Points, others: list[Points], size: float) -> bool:
    if min(box[2:]) < _SMALLEST + 1 or landmarks.min() < 1 or landmarks.max() > size - 1:
        return False
    for other in others:
        low, high = np.maximum(box[:2], other[:2]), np.minimum(box[:2] + box[2:], other[:2] + other[2:])
        if np.prod(np.clip(high - low, 0, None)) > _OVERLAP * min(np.prod(box[2:]), np.prod(other[2:])):
            return False
    return True


def _as_seen(face: Face, side: int, barrel: float) -> Face:
    """A face of the canvas as the lens shows it, in canvas px; its outline ends with the lens."""
    if not barrel:
        return face
    outline = _warped(face.outline, side, barrel)
    reach = np.linalg.norm(outline - (side - 1) / 2, axis=1, keepdims=True) / (side / 2)
    cut = np.minimum(1, _LENS / reach.clip(1e-9))
    outline = (outline - (side - 1) / 2) * cut + (side - 1) / 2
    return Face(outline, _warped(face.landmarks, side, barrel))


def _in_lens(face: Face, side: int, barrel: float) -> bool:
    reach = np.linalg.norm(face.landmarks - (side - 1) / 2, axis=1) / (side / 2)
    return not barrel or bool(reach.max() < _LENS)


def _measured(face: Face, side: int) -> tuple[Points, Points]:
    """Box (x, y, w, h), clipped to the picture, and landmarks (5, 2), from canvas px into px of the picture."""
    # OpenCV's coordinates are those of pixel centres.
    outline = np.clip((face.outline + 0.5) / _OVERSAMPLING, 0, side / _OVERSAMPLING)
    low, high = outline.min(axis=0), outline.max(axis=0)
    return np.concatenate([low, high - low]), (face.landmarks + 0.5) / _OVERSAMPLING


# The barrel warp, about the centre and in units of half the side: what is seen at radius r lies on the canvas at
# r (1 + k r^2) / (1 + k R^2). R is where the lens ends: pictures are black beyond it.
_LENS = 1.14


@lru_cache(maxsize=4)
def _barrel_grid(side: int, k: float) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]], NDArray[np.bool_]]:
    """The maps that cv2.remap takes, and where the lens ends."""
    middle = (side - 1) / 2
    x, y = np.meshgrid((np.arange(side) - middle) / (side / 2), (np.arange(side) - middle) / (side / 2))
    squared = x**2 + y**2
    stretch = (1 + k * squared) / (1 + k * _LENS**2) * (side / 2)
    grid = (x * stretch + middle).astype(np.float32), (y * stretch + middle).astype(np.float32)
    return grid, squared > _LENS**2


def _warped(points: Points, side: int, k: float) -> Points:
    """Where points (n, 2) of the canvas are seen: r + k r^3 = radius (1 + k R^2), by Cardano's formula."""
    middle = (side - 1) / 2
    offset = (points - middle) / (side / 2)
    radius = np.linalg.norm(offset, axis=1, keepdims=True)
    half = radius * (1 + k * _LENS**2) / (2 * k)
    root = np.sqrt(half**2 + 1 / (3 * k) ** 3)
    seen = np.cbrt(half + root) + np.cbrt(half - root)
    return offset * np.divide(seen, radius, out=np.ones_like(seen), where=radius > 0) * (side / 2) + middle


def write_contact_sheet(
    folder: str | os.PathLike[str],
    split: str,
    path: str | os.PathLike[str],
    *,
    count: int = 24,
    columns: int = 6,
    cell: int = 240,
) -> None:
    """Write a sheet of at most ``count`` pictures, evenly spread over a split, with boxes and landmarks.

    Green: a face; grey: one that is ignored; ``cell``: px per picture. Raises AnnotationError for a faulty data set.
    """
    draw_contact_sheet(coco.load(folder, split), path, count=count, columns=columns, cell=cell)


def draw_contact_sheet(
    data: coco.CocoSplit, path: str | os.PathLike[str], *, count: int = 24, columns: int = 6, cell: int = 240
) -> None:
    """Write the sheet of a split that was checked before."""
    chosen = [data.images[index] for index in np.unique(np.linspace(0, data.num_images - 1, count).astype(int))]
    rows = math.ceil(len(chosen) / columns)
    sheet = np.full((rows * cell, columns * cell, 3), 255, np.uint8)
    for position, record in enumerate(chosen):
        annotations = [annotation for annotation in data.annotations if annotation["image_id"] == record["id"]]
        picture = _annotated(cv2.imread(str(data.image_path(record))), annotations, cell - 4)
        top, left = (2 + cell * index for index in divmod(position, columns))
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    _save(Path(path), sheet)


def _annotated(image: Image, annotations: list[coco.Record], side: int) -> Image:
    scale = side / max(image.shape[:2])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    for annotation in annotations:
        x, y, width, height = (value * scale for value in annotation["bbox"])
        colour = (0, 220, 0) if not annotation["ignore"] and not annotation["iscrowd"] else (150, 150, 150)
        cv2.rectangle(image, (round(x), round(y)), (round(x + width), round(y + height)), colour, 1)
        for u, v, visible in np.reshape(annotation.get("keypoints", []), (-1, 3)):
            if visible:
                cv2.circle(image, (round(u * scale), round(v * scale)), 2, (0, 0, 255), -1)
    return image


def _save(path: Path, image: Image) -> None:
    options = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, 92], ".png": []}
    if path.suffix not in options:
        raise ValueError(f"{path}: the picture cannot be written in this format; name a .jpg or .png file.")
    data = cv2.imencode(path.suffix, image, options[path.suffix])[1]
    path.write_bytes(data.tobytes())


def _to_bytes(image: NDArray[np.float32]) -> Image:
    return np.clip(image, 0, 255).astype(np.uint8)
