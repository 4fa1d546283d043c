"""What every annotation layout is read into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

Box = tuple[float, float, float, float]
Point = tuple[float, float]


class ConvertError(ValueError):
    """A source that cannot be converted; the message names file, line where there is one, reason and remedy."""


@dataclass(frozen=True)
class Face:
    """A face as annotated, not yet checked.

    ``box``: x, y, width, height in pixels, x and y from 0. ``landmarks``: left eye, right eye, nose, left and
    right corner of the mouth, left and right as the viewer sees them, None for a point that is not annotated.
    ``ignore``: neither trained on nor counted in AP. ``wider_level``: the easiest of WIDER FACE's lists that it is on.
    """

    box: Box
    landmarks: tuple[Point | None, ...] | None = None
    ignore: bool = False
    wider_level: str | None = None


@dataclass(frozen=True)
class Picture:
    """An image file with its faces.

    ``where`` is the place of the annotation (file, and line where it has lines) for messages. ``split`` is the official
    one (train, val or test) or None. With ``normalised``, boxes are fractions of the picture's width and height.
    """

    path: Path
    faces: tuple[Face, ...]
    where: str
    split: str | None = None
    normalised: bool = False
