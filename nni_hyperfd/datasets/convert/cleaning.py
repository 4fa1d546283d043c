"""What of a source can be used: each readable image once, and the faces that have an area inside it."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from nni_hyperfd.datasets.convert.record import Box, Face, Picture, Point
from nni_hyperfd.datasets.decoded import sizes_or_reasons

MISSING, UNREADABLE, OUTSIDE = "image missing", "image unreadable", "image outside the source"
"""Kinds of changes by which a source loses images that it should have."""
_BATCH = 500  # pictures decoded between two writes of the cache of sizes


@dataclass(frozen=True)
class CleanPicture:
    """A picture that can be used.

    Attributes:
        picture: its faces are clipped to the image; boxes are in pixels.
        width: of the image in px.
        height: of the image in px.
        digest: SHA-256 (hex) of the file.
    """

    picture: Picture
    width: int
    height: int
    digest: str


@dataclass
class Changes:
    """What was dropped or changed.

    Attributes:
        items: for each kind of change the place and the content of every case.
        images: number of images that the source annotates.
        faces: number of boxes that the source has.
    """

    items: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    images: int = 0
    faces: int = 0

    def count_annotated(self, pictures: Collection[Picture]) -> None:
        """Count what the source annotates, before anything is dropped."""
        self.images += len(pictures)
        self.faces += sum(len(picture.faces) for picture in pictures)

    def note(self, kind: str, where: str, what: str = "") -> None:
        """Add a case: its place, and the content that was dropped or changed."""
        self.items[kind].append(f"{where}: {what}" if what else where)

    def counts(self) -> Counter[str]:
        """Return the number of cases of each kind."""
        return Counter({kind: len(items) for kind, items in self.items.items()})


def clean(source: Path, pictures: Iterable[Picture], changes: Changes) -> Iterator[CleanPicture]:
    """Yield the pictures that can be used, in their order.

    Args:
        source: folder or file of the data set; images outside it are not taken. The cache of image sizes is named after
            it, so that a second run does not decode images again.
        pictures: as annotated.
        changes: gets everything that is dropped or changed.
    """
    first: dict[str, Path] = {}
    stream = iter(pictures)
    while batch := list(islice(stream, _BATCH)):
        changes.count_annotated(batch)
        present = [picture for picture in batch if _is_present(source, picture, changes)]
        sizes = sizes_or_reasons(source, [picture.path for picture in present])
        for picture, size in zip(present, sizes, strict=True):
            if isinstance(size, str):
                changes.note(UNREADABLE, picture.where, f"{picture.path} ({size})")
                continue
            digest = hashlib.sha256(picture.path.read_bytes()).hexdigest()
            if digest in first:
                changes.note("image twice", picture.where, f"{picture.path} is {first[digest]} again")
                continue
            first[digest] = picture.path
            faces = tuple(clean_faces(picture, *size, changes))
            if all(face.ignore for face in faces):
                changes.note("image without a face", picture.where, str(picture.path))
                continue
            yield CleanPicture(replace(picture, faces=faces, normalised=False), *size, digest)


def _is_present(source: Path, picture: Picture, changes: Changes) -> bool:
    for kind, what in picture.notes:
        changes.note(kind, picture.where, what)
    if picture.unusable:
        return False
    folder = source if source.is_dir() else source.parent
    # A crafted annotation must not copy other files of this machine into the data set. Links are the owner's decision,
    # so they are not resolved.
    if not Path(os.path.abspath(picture.path)).is_relative_to(os.path.abspath(folder)):
        changes.note(OUTSIDE, picture.where, str(picture.path))
    elif not picture.path.is_file():
        changes.note(MISSING, picture.where, str(picture.path))
    else:
        return True
    return False


def clean_faces(picture: Picture, width: int, height: int, changes: Changes) -> Iterator[Face]:
    """Yield the faces of a picture in pixels, clipped to the image.

    Boxes without area, outside the image, thinner than a pixel or given twice are left out.

    Args:
        picture: as annotated.
        width: of the image in px.
        height: of the image in px.
        changes: gets everything that is dropped or changed.
    """
    seen: set[Box] = set()
    for face in picture.faces:
        x, y, w, h = face.box
        if picture.normalised:
            x, y, w, h = x * width, y * height, w * width, h * height
            face = replace(face, landmarks=_in_pixels(face, width, height))
        text = "box " + " ".join(f"{value:g}" for value in face.box)
        if not all(map(math.isfinite, (x, y, w, h))) or w <= 0 or h <= 0:
            changes.note("invalid face without area" if face.invalid else "box without area", picture.where, text)
            continue
        box = clip((x, y, w, h), width, height)
        if min(box[2:]) < 1:
            kind = "box outside the image" if min(w, h) >= 1 else "box thinner than a pixel"
            changes.note(kind, picture.where, text)
            continue
        if box in seen:
            changes.note("box twice", picture.where, text)
            continue
        seen.add(box)
        if any(abs(new - old) > 1e-6 for new, old in zip(box, (x, y, w, h), strict=True)):
            changes.note("box clipped to the image", picture.where, text)
        if face.invalid:
            changes.note("face marked invalid by the source, ignored", picture.where, text)
        yield replace(face, box=box, landmarks=_inside(picture, face, width, height, changes))


def clip(box: Box, width: int, height: int) -> Box:
    """Clip a box to an image of `width` x `height` px; what is left has negative sides where the two are apart."""
    x, y, w, h = box
    left, top = max(x, 0.0), max(y, 0.0)
    return left, top, min(x + w, float(width)) - left, min(y + h, float(height)) - top


def _in_pixels(face: Face, width: int, height: int) -> tuple[Point | None, ...] | None:
    """The landmarks of a face in an image whose coordinates are fractions."""
    if face.landmarks is None:
        return None
    return tuple(None if point is None else (point[0] * width, point[1] * height) for point in face.landmarks)


def _inside(picture: Picture, face: Face, width: int, height: int, changes: Changes) -> tuple[Point | None, ...] | None:
    """The landmarks without those outside the image; None if none is left."""
    if face.landmarks is None:
        return None
    points = []
    for point in face.landmarks:
        if point is not None and not (0 <= point[0] <= width and 0 <= point[1] <= height):
            changes.note("landmark outside the image", picture.where, f"{point[0]:g} {point[1]:g}")
            point = None
        points.append(point)
    return tuple(points) if any(points) else None
