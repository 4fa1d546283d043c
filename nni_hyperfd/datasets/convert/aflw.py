"""AFLW: faces and 21 landmarks in the database `aflw.sqlite`, images below `flickr/`."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path

from nni_hyperfd.datasets.convert.record import ConvertError, Face, Picture, Point
from nni_hyperfd.datasets.convert.sources import only

# The landmarks that are kept, in the order of `record.Face`. In AFLW, too, left is the viewer's.
_FIVE = ("LeftEyeCenter", "RightEyeCenter", "NoseCenter", "MouthLeftCorner", "MouthRightCorner")

_FACES = """
    SELECT FaceImages.filepath, Faces.face_id, FaceRect.x, FaceRect.y, FaceRect.w, FaceRect.h
    FROM Faces JOIN FaceImages ON FaceImages.file_id = Faces.file_id JOIN FaceRect ON FaceRect.face_id = Faces.face_id
    ORDER BY FaceImages.filepath, Faces.face_id
"""
_POINTS = """
    SELECT FeatureCoords.face_id, FeatureCoordTypes.descr, FeatureCoords.x, FeatureCoords.y
    FROM FeatureCoords JOIN FeatureCoordTypes ON FeatureCoordTypes.feature_id = FeatureCoords.feature_id
"""


def aflw(source: Path, _: Collection[str]) -> Iterator[Picture]:
    """Read AFLW, which has no official splits. A face without a rectangle in the database is left out."""
    file = only(source, "aflw.sqlite")
    folders = [path for path in sorted(source.rglob("flickr")) if path.is_dir()]
    if len(folders) != 1:
        raise ConvertError(f"{source}: holds {len(folders)} folders named flickr; unpack the images into one.")
    try:
        faces = _read(file)
    except (sqlite3.Error, TypeError, ValueError) as error:
        raise ConvertError(f"{file}: cannot be read as AFLW's database ({error}); it may be cut off.") from None
    for name, found in faces.items():
        yield Picture(folders[0] / name, tuple(found), f"{file}, image {name}")


def _read(file: Path) -> dict[str, list[Face]]:
    """The faces of every image, by its path."""
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
        points: dict[int, dict[str, Point]] = defaultdict(dict)
        for number, landmark, x, y in database.execute(_POINTS):
            points[number][landmark] = float(x), float(y)
        faces: dict[str, list[Face]] = defaultdict(list)
        for name, number, x, y, width, height in database.execute(_FACES):
            five = tuple(points[number].get(landmark) for landmark in _FIVE)
            box = float(x), float(y), float(width), float(height)
            faces[name].append(Face(box, five if any(five) else None))
    return faces
