"""What every annotation layout is read into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

Box = tuple[float, float, float, float]
"""x, y, width, height; x and y from 0."""
Point = tuple[float, float]
"""x, y in pixels."""


class ConvertError(ValueError):
    """A source that cannot be converted; the message names file, line where there is one, reason and remedy."""


@dataclass(frozen=True)
class Face:
    """A face as annotated, not yet checked.

    Attributes:
        box: in pixels, or as fractions (see `Picture.normalised`).
        landmarks: left eye, right eye, nose, left and right corner of the mouth, where left and right are those of the
            viewer; None for a point that is not annotated, or in place of them all.
        ignore: the face is neither trained on nor counted in AP.
        invalid: the source itself marks it as no usable face; every such record is reported.
        wider_level: the easiest of WIDER FACE's evaluation lists that the face is on.
    """

    box: Box
    landmarks: tuple[Point | None, ...] | None = None
    ignore: bool = False
    wider_level: str | None = None
    invalid: bool = False


@dataclass(frozen=True)
class Picture:
    """An image file with its faces.

    Attributes:
        path: the file, which need not exist.
        faces: as annotated.
        where: place of the annotation (file, and line where it has lines), for messages.
        split: the official one (train, val or test), or None.
        normalised: boxes are fractions of the picture's width and height.
        group: the person or camera that it shows or comes from, or None.
        notes: (kind, content) of what the reader had to change or leave out, for the report.
        unusable: the source says that the image is not to be used; the last of `notes` says why.
    """

    path: Path
    faces: tuple[Face, ...]
    where: str
    split: str | None = None
    normalised: bool = False
    group: str | None = None
    notes: tuple[tuple[str, str], ...] = ()
    unusable: bool = False
