"""Data sets with an annotation file for every image: FaceMask (JSON) and Pascal VOC's person layout (XML)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from nni_hyperfd.datasets.convert.generic import bounding_box, parse_xml, text, voc_lists
from nni_hyperfd.datasets.convert.record import ConvertError, Face, Picture
from nni_hyperfd.datasets.convert.sources import read_json

# The classes of FaceMask that are faces; the others are masks, hats, glasses and the like on them.
_FACES = {"face_with_mask", "face_with_mask_incorrect", "face_no_mask", "face_other_covering"}


def facemask(source: Path, _: Collection[str]) -> Iterator[Picture]:
    """Read FaceMask (Wobot Intelligence): `annotations/*.json` beside `images/`; no official splits with labels."""
    files = sorted(source.rglob("annotations/*.json"))
    if not files:
        raise ConvertError(f"{source}: holds no annotations/*.json; check the folder.")
    for file in files:
        record = read_json(file)
        try:
            faces = []
            for item in record["Annotations"]:
                if item["classname"] in _FACES:
                    left, top, right, bottom = map(float, item["BoundingBox"])
                    faces.append(Face((left, top, right - left, bottom - top)))
            picture = Picture(file.parent.parent / "images" / record["FileName"], tuple(faces), str(file))
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ConvertError(f"{file}: is not an annotation of FaceMask ({reason}); it may be damaged.") from None
        yield picture


def pascal(source: Path, _: Collection[str]) -> Iterator[Picture]:
    """Read Pascal VOC's person layout: heads in `Annotations/*.xml`, `JPEGImages/`, splits in `ImageSets/Layout/`.

    Only images with an annotated head belong to it. Coordinates count from 1, and both corners belong to the head.
    """
    files = sorted(source.rglob("Annotations/*.xml"))
    if not files:
        raise ConvertError(f"{source}: holds no Annotations/*.xml; check the folder.")
    splits = voc_lists(source, "Layout")
    for file in files:
        tree, faces = parse_xml(file), []
        for part in tree.iterfind("object/part"):
            if text(part, "name", file) == "head":
                x, y, width, height = bounding_box(part, file)
                faces.append(Face((x - 1, y - 1, width + 1, height + 1)))
        if faces:
            path = file.parent.parent / "JPEGImages" / text(tree, "filename", file)
            yield Picture(path, tuple(faces), str(file), splits.get(file.stem))
