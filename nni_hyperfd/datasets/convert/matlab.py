"""Data sets annotated in MATLAB files: MAFA and WIKI, and the levels of WIDER FACE."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from nni_hyperfd.datasets.coco import WIDER_LEVELS
from nni_hyperfd.datasets.convert.record import ConvertError, Face, Picture
from nni_hyperfd.datasets.convert.sources import first_box, only

_INVALID = 3  # face_type of MAFA's test labels: 1 masked, 2 unmasked, 3 invalid


def mafa(source: Path, _: Collection[str]) -> Iterator[Picture]:
    """Read MAFA: `LabelTrainAll.mat`, `LabelTestAll.mat` and `{train,test}-images/images/`; both splits are official.

    A label starts with x, y, width, height. Invalid faces of the test split are ignored. The only annotated landmarks,
    the eyes of the training split, are not used, as in Table 7 of the HyperFD paper.
    """
    for split, file_name, variable, first in (
        ("train", "LabelTrainAll.mat", "label_train", 1),  # fields: original name, name, label (21 numbers)
        ("test", "LabelTestAll.mat", "LabelTest", 0),  # fields: name, label (18 numbers)
    ):
        file = only(source, file_name)
        for number, record in enumerate(_variable(file, variable).ravel(), start=1):
            where = f"{file}, record {number}"
            try:
                name, labels = str(record[first].item()), np.atleast_2d(record[first + 1]).astype(float)
                faces = [
                    Face(first_box(list(map(float, label))), ignore=split == "test" and label[4] == _INVALID)
                    for label in labels
                    if label.size
                ]
            except (AttributeError, IndexError, TypeError, ValueError) as error:
                raise ConvertError(f"{where}: is not a name with labels ({error}); the file may be damaged.") from None
            yield Picture(source / f"{split}-images" / "images" / name, tuple(faces), where, split)


def wiki(source: Path, _: Collection[str]) -> Iterator[Picture]:
    """Read WIKI (of IMDB-WIKI): `wiki.mat` beside its folders of images; no official splits.

    Every image has one face: the one that the authors' detector took for the person's. Where it found none (a score of
    minus infinity), the location is the whole image; such an image counts as one without a face.
    """
    file = only(source, "wiki.mat")
    try:
        table = _variable(file, "wiki").ravel()[0]
        paths, places, scores = (table[name].ravel() for name in ("full_path", "face_location", "face_score"))
        for number, (path, place, score) in enumerate(zip(paths, places, scores, strict=True), start=1):
            left, top, right, bottom = map(float, place.ravel())
            # MATLAB counts pixels from 1, and both corners belong to the face.
            face = Face((left - 1, top - 1, right - left + 1, bottom - top + 1))
            found = (face,) if math.isfinite(score) else ()
            yield Picture(file.parent / str(path.item()), found, f"{file}, image {number}")
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise ConvertError(f"{file}: is not the table of WIKI ({error}); the file may be damaged.") from None


def wider_levels(source: Path) -> dict[tuple[str, int], str]:
    """Read the easiest level of each validation face of WIDER FACE from `wider_{easy,medium,hard}_val.mat`.

    Each file has for every event (`event_list`) its images (`file_list`, without suffix) and the numbers of the faces
    that count (`gt_list`).

    Returns:
        The level by image name (`event/file.jpg`) and number of the face in its list, from 1. Faces on no list are left
        out; without the files there are none.

    Raises:
        ConvertError: a file is missing or cannot be read.
    """
    found: dict[tuple[str, int], str] = {}
    if not any(path for level in WIDER_LEVELS for path in source.rglob(f"wider_{level}_val.mat")):
        return found  # the official download has wider_face_val.mat, which is no list of a level
    for level in WIDER_LEVELS:
        file = only(source, f"wider_{level}_val.mat")
        events, images, counted = (_variable(file, name).ravel() for name in ("event_list", "file_list", "gt_list"))
        try:
            for event, names, faces in zip(events, images, counted, strict=True):
                for name, numbers in zip(names.ravel(), faces.ravel(), strict=True):
                    for number in numbers.ravel():
                        found.setdefault((f"{event.item()}/{name.item()}.jpg", int(number)), level)
        except (AttributeError, TypeError, ValueError) as error:
            raise ConvertError(f"{file}: is not a list of WIDER FACE ({error}); the file may be damaged.") from None
    return found


def _variable(file: Path, name: str) -> Any:
    try:
        return scipy.io.loadmat(file)[name]
    except KeyError:
        raise ConvertError(f"{file}: holds no variable '{name}'; check that it is the official file.") from None
    except Exception as error:  # the reader may raise anything on a broken file
        raise ConvertError(f"{file}: cannot be read as a MATLAB file ({error}); it may be cut off.") from None
