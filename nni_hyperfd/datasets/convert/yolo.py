"""YOLO TXT files, as annotation tools, Roboflow and Ultralytics write them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from nni_hyperfd.datasets.convert.categories import faces_among
from nni_hyperfd.datasets.convert.record import Box, ConvertError, Face, Picture, Point
from nni_hyperfd.datasets.convert.sources import images, lines, numbers, split_of_folders

_YAML_SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
_POSE = 19  # numbers of a box with five landmarks, each x, y and visibility


@dataclass(frozen=True)
class _Row:
    """A line of a TXT file: class number, face, and what had to be changed."""

    kind: str
    face: Face
    note: tuple[str, str] | None = None


@dataclass(frozen=True)
class _Description:
    """What a ``data.yaml`` says.

    Attributes:
        names: class names by number, as text.
        splits: the split of each image that belongs to the data set; None where the file names no splits.
        keypoints: numbers of landmarks and of values for each; None for boxes alone.
    """

    names: dict[str, str]
    splits: dict[Path, str] | None = None
    keypoints: tuple[int, int] | None = None


def yolo(source: Path, wanted: Collection[str]) -> Iterator[Picture]:
    """Read YOLO TXT files beside the images, or in `labels/` beside `images/`.

    Class names and splits (folders, or lists of images) are those of ``data.yaml``. Without one, class names are those
    of ``classes.txt``, every image below the source belongs to it, and folders named after train, valid, test are
    official splits. An image without a TXT file has no face. A single class is that of the faces; of several without
    names, --category takes their numbers. Of a polygon, its bounding box is taken.
    """
    described = _description(source)
    found = list(images(source)) if described.splits is None else list(described.splits)
    if not found:
        raise ConvertError(f"{source}: holds no images; check the folder.")
    labels = {path: label_of(path) for path in found}
    if not any(label.is_file() for label in labels.values()):
        raise ConvertError(f"{source}: none of its {len(found)} images has a txt file; check the folder.")
    rows = {path: list(_rows(label, described.keypoints)) for path, label in labels.items()}
    names = {row.kind: described.names.get(row.kind, row.kind) for read in rows.values() for row in read}
    chosen = faces_among(set(names.values()), wanted, str(source))
    for path, read in rows.items():
        mine = [row for row in read if names[row.kind] in chosen]
        if described.splits is None:
            split = split_of_folders(path, source)
        else:
            split = described.splits[path]
        notes = tuple(row.note for row in mine if row.note is not None)
        faces = tuple(row.face for row in mine)
        yield Picture(path, faces, str(labels[path]), split, normalised=True, notes=notes)


def describes_yolo(source: Path) -> bool:
    """Whether a folder has a ``data.yaml``."""
    return any(_read_yaml(path) is not None for path in _yaml_files(source))


def label_of(image: Path) -> Path:
    """The TXT file of an image: in `labels/` in place of the innermost `images/`, if it is there, else beside it."""
    parts = list(image.with_suffix(".txt").parts)
    for index in reversed(range(len(parts) - 1)):
        if parts[index] == "images":
            moved = Path(*parts[:index], "labels", *parts[index + 1 :])
            if moved.is_file():
                return moved
            break
    return image.with_suffix(".txt")


def _rows(label: Path, keypoints: tuple[int, int] | None) -> Iterator[_Row]:
    """Every line of a TXT file; boxes are fractions of the image."""
    for number, line in enumerate(lines(label) if label.is_file() else [], start=1):
        if not line:
            continue
        kind, *rest = line.split()
        where = f"{label}, line {number}"
        if not kind.isdecimal():
            raise ConvertError(f"{where}: the class '{kind}' is no whole number; correct the line.")
        yield _row(kind, numbers(rest, len(rest), where), keypoints, where)


def _row(kind: str, values: list[float], keypoints: tuple[int, int] | None, where: str) -> _Row:
    """A box; a box with a confidence or with landmarks; or a polygon."""
    count = len(values)
    shape = keypoints or ((5, 3) if count == _POSE else None)
    if shape is not None and count == 4 + shape[0] * shape[1]:
        return _Row(kind, Face(_box(values), _landmarks(values[4:], *shape)))
    if count == 4:
        return _Row(kind, Face(_box(values)))
    if count == 5:
        text = f"{where.rpartition(', ')[2]}: {values[4]:g}"
        return _Row(kind, Face(_box(values)), ("confidence after a box, left out", text))
    if count >= 6 and count % 2 == 0:
        xs, ys = values[::2], values[1::2]
        box = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
        text = f"{where.rpartition(', ')[2]}: {count // 2} points"
        return _Row(kind, Face(box), ("polygon, its bounding box taken", text))
    raise ConvertError(
        f"{where}: a class and 4 numbers are due here, not {count}; boxes, with a confidence or five landmarks if you"
        " like, and polygons are read."
    )


def _box(values: list[float]) -> Box:
    centre_x, centre_y, width, height = values[:4]
    return centre_x - width / 2, centre_y - height / 2, width, height


def _landmarks(values: list[float], points: int, each: int) -> tuple[Point | None, ...] | None:
    """Five landmarks as fractions of the image; None for another number of them."""
    if points != 5:
        return None
    triples = [values[start : start + each] for start in range(0, points * each, each)]
    return tuple(None if each == 3 and not rest[2] or rest[:2] == [0, 0] else (rest[0], rest[1]) for rest in triples)


def _description(source: Path) -> _Description:
    """What ``data.yaml`` says, or ``classes.txt``."""
    found = {path: content for path in _yaml_files(source) if (content := _read_yaml(path)) is not None}
    if len(found) > 1:
        listed = ", ".join(path.relative_to(source).as_posix() for path in found)
        raise ConvertError(f"{source}: several files describe a data set ({listed}); convert each folder by itself.")
    for path, content in found.items():
        return _described(path, content, source)
    files = sorted(source.rglob("classes.txt"))
    known = lines(files[0]) if files else []
    return _Description({str(number): name for number, name in enumerate(known)})


def _yaml_files(source: Path) -> list[Path]:
    return sorted([*source.rglob("*.yaml"), *source.rglob("*.yml")])


def _read_yaml(path: Path) -> dict[str, Any] | None:
    """The content of a file that describes a YOLO data set; None for other files."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        if path.stem in ("data", "dataset"):
            raise ConvertError(f"{path}: cannot be read as YAML ({error}); correct it.") from None
        return None
    return content if isinstance(content, dict) and "names" in content and "train" in content else None


def _described(path: Path, content: Mapping[str, Any], source: Path) -> _Description:
    listed = content["names"]
    pairs = listed.items() if isinstance(listed, Mapping) else enumerate(listed if isinstance(listed, list) else [])
    names = {str(number): str(name) for number, name in pairs}
    splits: dict[Path, str] = {}
    for key, split in _YAML_SPLITS.items():
        entries = content.get(key) or []
        for entry in entries if isinstance(entries, list) else [entries]:
            for image in _images_of(path, content, str(entry), source, required=key == "train"):
                splits.setdefault(image, split)
    shape = content.get("kpt_shape")
    keypoints = (int(shape[0]), int(shape[1])) if isinstance(shape, list) and len(shape) == 2 else None
    return _Description(names, splits, keypoints)


def _images_of(path: Path, content: Mapping[str, Any], entry: str, source: Path, required: bool) -> list[Path]:
    """The images of an entry of ``data.yaml``: those in a folder, or in a list."""
    place = _place(path, content, entry, source)
    if place is None:
        # Exports name a test folder whether there is one or not.
        if required:
            raise ConvertError(f"{path}: its folder or list {entry!r} is not below {source}; correct the entry.")
        return []
    if place.is_dir():
        return list(images(place))
    find = partial(_place, path, content, source=source)
    return [find(entry=line) or place.parent / line for line in lines(place) if line]


def _place(path: Path, content: Mapping[str, Any], entry: str, source: Path) -> Path | None:
    """The file or folder of an entry: relative to ``path:``, to the file, or, for another machine's, its last parts."""
    base = str(content.get("path") or "")
    parts = [part for part in PurePosixPath(entry.replace("\\", "/")).parts if part not in ("/", ".", "..")]
    tails = [Path(*parts[start:]) for start in range(len(parts))]
    roots = [path.parent / base, path.parent, source]
    for candidate in [*(root / entry for root in roots), *(root / tail for tail in tails for root in roots[1:])]:
        if candidate.exists():
            return Path(*candidate.parts)
    return None
