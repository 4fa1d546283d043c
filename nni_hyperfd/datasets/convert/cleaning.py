"""What of a source can be used: readable images, once each, and faces with an area inside them."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from nni_hyperfd.datasets.convert.record import Face, Picture, Point
from nni_hyperfd.datasets.decoded import sizes_or_reasons

_BATCH = 500  # pictures decoded between two writes of the cache of sizes


@dataclass(frozen=True)
class Clean:
    """A picture that can be used: its faces clipped to ``width`` x ``height``, ``digest`` the sha256 of its file."""

    picture: Picture
    width: int
    height: int
    digest: str


@dataclass
class Changes:
    """What was dropped or changed, by kind: the place of each one and what it was."""

    items: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def note(self, kind: str, where: str, what: str = "") -> None:
        self.items[kind].append(f"{where}: {what}" if what else where)

    def counts(self) -> Counter[str]:
        return Counter({kind: len(items) for kind, items in self.items.items()})


def clean(source: Path, pictures: Iterable[Picture], changes: Changes) -> Iterator[Clean]:
    """The pictures that can be used, in their order; all else is noted in ``changes``.

    ``source`` names the cache of image sizes, so that a second run decodes nothing again.
    """
    first: dict[str, Path] = {}
    stream = iter(pictures)
    while batch := list(islice(stream, _BATCH)):
        present = [picture for picture in batch if _is_present(source, picture, changes)]
        sizes = sizes_or_reasons(source, [picture.path for picture in present])
        for picture, size in zip(present, sizes, strict=True):
            if isinstance(size, str):
                changes.note("image unreadable", picture.where, f"{picture.path} ({size})")
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
            yield Clean(replace(picture, faces=faces, normalised=False), *size, digest)


def _is_present(source: Path, picture: Picture, changes: Changes) -> bool:
    folder = source if source.is_dir() else source.parent
    # A crafted annotation must not carry other files of this machine into the data set; links are the owner's own.
    if not Path(os.path.abspath(picture.path)).is_relative_to(os.path.abspath(folder)):
        changes.note("image outside the source", picture.where, str(picture.path))
    elif not picture.path.is_file():
        changes.note("image missing", picture.where, str(picture.path))
    else:
        return True
    return False


def clean_faces(picture: Picture, width: int, height: int, changes: Changes) -> Iterator[Face]:
    """Faces in pixels, clipped to the image; boxes without area, outside the image or given twice are left out."""
    seen = set()
    for face in picture.faces:
        x, y, w, h = face.box
        if picture.normalised:
            x, y, w, h = x * width, y * height, w * width, h * height
        text = "box " + " ".join(f"{value:g}" for value in face.box)
        if not all(map(math.isfinite, (x, y, w, h))) or w <= 0 or h <= 0:
            changes.note("box without area", picture.where, text)
            continue
        left, top = max(x, 0.0), max(y, 0.0)
        box = left, top, min(x + w, float(width)) - left, min(y + h, float(height)) - top
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
        yield replace(face, box=box, landmarks=_inside(picture, face, width, height, changes))


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
