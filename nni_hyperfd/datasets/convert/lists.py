"""Data sets annotated in text files that list images with their faces: WIDER FACE, UFDD, FDDB, UMDAA-02-FD."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from nni_hyperfd.datasets.convert.finding import finder, folder_of
from nni_hyperfd.datasets.convert.matlab import wider_levels
from nni_hyperfd.datasets.convert.record import Box, ConvertError, Face, Picture, Point
from nni_hyperfd.datasets.convert.sources import first_box, lines, numbers, only

_INVALID = 7  # field of a WIDER FACE line: x y w h blur expression illumination invalid occlusion pose

Rows = list[tuple[str, list[str]]]
"""Lines of faces: the place of each, for messages, and its words."""


def wider(source: Path, _: Collection[str]) -> Iterator[Picture]:
    """Read WIDER FACE: `wider_face_{train,val}_bbx_gt.txt` and `WIDER_{train,val}/images/`, one split or both.

    Faces that are marked invalid are ignored. If the source contains RetinaFace's landmarks (a `label.txt` in a folder
    named train), training faces get the five points; if it contains the benchmark's `wider_{easy,medium,hard}_val.mat`,
    validation faces get their level. The test split has no published annotations.
    """
    named = {split: f"wider_face_{split}_bbx_gt.txt" for split in ("train", "val")}
    files = {split: only(source, name) for split, name in named.items() if any(source.rglob(name))}
    if not files:
        raise ConvertError(
            f"{source}: holds no {' and no '.join(named.values())}; unpack wider_face_split.zip into it."
        )
    points, levels = _landmarks(source), wider_levels(source)
    for split, file in files.items():
        folder = folder_of(source, f"WIDER_{split}/images")
        for name, where, rows in _counted(file):
            faces = []
            for number, (row_where, words) in enumerate(rows, start=1):
                values = numbers(words, 10, row_where)
                box, invalid = first_box(values), values[_INVALID] == 1
                level = levels.get((name, number)) if split == "val" else None
                faces.append(Face(box, points.get((name, box)), invalid, level, invalid))
            yield Picture(folder / name, tuple(faces), where, split)


def ufdd(source: Path, _: Collection[str]) -> Iterator[Picture]:
    """Read UFDD: `UFDD_val_bbx_gt.txt`, written as WIDER FACE's, and `UFDD_val/images/`; no official splits.

    Distractors, which are images without a face, are dropped by the cleaning, as in Table 7 of the HyperFD paper.
    """
    file, folder = only(source, "UFDD_val_bbx_gt.txt"), folder_of(source, "UFDD_val/images")
    for name, where, rows in _counted(file):
        faces = [Face(first_box(numbers(words, 4, row_where))) for row_where, words in rows]
        yield Picture(folder / name, tuple(faces), where)


def fddb(source: Path, _: Collection[str]) -> Iterator[Picture]:
    """Read FDDB: `FDDB-folds/FDDB-fold-XX-ellipseList.txt` and `originalPics/`; ten folds, but no official splits."""
    files = sorted(source.rglob("FDDB-fold-*-ellipseList.txt"))
    if not files:
        raise ConvertError(f"{source}: holds no FDDB-fold-XX-ellipseList.txt; unpack FDDB-folds.tgz into it.")
    folder = folder_of(source, "originalPics")
    for file in files:
        for name, where, rows in _counted(file):
            faces = [Face(ellipse_box(*numbers(words, 5, row_where))) for row_where, words in rows]
            yield Picture(folder / f"{name}.jpg", tuple(faces), where)


def umdaa(source: Path, _: Collection[str]) -> Iterator[Picture]:
    """Read UMDAA-02-FD: `AnnotatedAA02_TL_BR.csv` and the images; no official splits.

    Rows: path, x1, y1, x2, y2, flag. Of the flags, -1 (or coordinates of -1) is an image without a face, 1 a usable
    face, 2 to 5 an image with missing data, which is left out. The user, the third part of the path, is the group.
    """
    file = only(source, "AnnotatedAA02_TL_BR.csv")
    find = finder(source)
    for number, line in enumerate(lines(file), start=1):
        name, *words = (word.strip() for word in line.split(","))
        where = f"{file}, line {number}"
        if not name or number == 1 and not words[-1:][0].lstrip("-").isdecimal():
            continue  # an empty line, or a header
        left, top, right, bottom, flag = numbers(words, 5, where)
        parts = PurePosixPath(name).parts
        group = parts[2] if len(parts) > 3 else None
        path = next((place for place in (source / name, file.parent / name) if place.is_file()), None)
        path = path or find(file.parent, name)
        if flag == -1 or (left, top, right, bottom) == (-1, -1, -1, -1):
            yield Picture(path, (), where, group=group)
        elif flag == 1:
            yield Picture(path, (Face((left, top, right - left, bottom - top)),), where, group=group)
        else:
            yield Picture(path, (), where, group=group, notes=(("missing data", f"flag {flag:g}"),), unusable=True)


def ellipse_box(major: float, minor: float, angle: float, x: float, y: float) -> Box:
    """Compute the upright box around an ellipse.

    The maximum of ``major cos(t) cos(angle) - minor sin(t) sin(angle)`` over t is the root of the sum of squares of the
    two factors.

    Args:
        major: the larger radius in pixels.
        minor: the smaller radius in pixels.
        angle: of the major axis to the x axis, in radians.
        x: of the centre, in pixels.
        y: of the centre, in pixels.
    """
    half_width = math.hypot(major * math.cos(angle), minor * math.sin(angle))
    half_height = math.hypot(major * math.sin(angle), minor * math.cos(angle))
    return x - half_width, y - half_height, 2 * half_width, 2 * half_height


def _counted(file: Path) -> Iterator[tuple[str, str, Rows]]:
    """Name, place and rows of every image of a list: a line with the name, one with the number n of faces, n lines.

    For an image without faces WIDER FACE adds a line of zeros; other lists do not.
    """
    content = lines(file)
    place = 0
    while place < len(content):
        name, where = content[place], f"{file}, line {place + 1}"
        place += 1
        if not name:
            continue
        if place == len(content) or not content[place].isdecimal():
            raise ConvertError(f"{file}, line {place + 1}: the number of faces is due here; the file may be cut off.")
        count = int(content[place])
        place += 1
        if place + count > len(content):
            missing = place + count - len(content)
            raise ConvertError(f"{where}: {missing} of the {count} faces of {name} are missing; the file is cut off.")
        rows = [(f"{file}, line {line + 1}", content[line].split()) for line in range(place, place + count)]
        place += count
        if count == 0 and place < len(content) and set(content[place].split()) == {"0"}:
            place += 1
        yield name, where, rows


def _landmarks(source: Path) -> dict[tuple[str, Box], tuple[Point | None, ...]]:
    """RetinaFace's landmarks of the training faces, by image and box.

    Lines of `label.txt`: ``# name`` of the image, then for each face x y w h, five times (x y flag) and one more
    number; -1 stands for a landmark that is not annotated.
    """
    files = [path for path in sorted(source.rglob("label.txt")) if path.parent.name == "train"]
    found: dict[tuple[str, Box], tuple[Point | None, ...]] = {}
    for file in files:
        name = ""
        for number, line in enumerate(lines(file), start=1):
            if line.startswith("#"):
                name = line.removeprefix("#").strip()
            elif line:
                values = numbers(line.split(), 19, f"{file}, line {number}")
                triples = [values[start : start + 3] for start in range(4, 19, 3)]
                points = tuple(None if x < 0 or y < 0 else (x, y) for x, y, _ in triples)
                if any(points):
                    found[name, first_box(values)] = points
    return found
