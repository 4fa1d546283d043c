"""One conversion: from a source folder to ``<out>/{train,val,test}.json``, ``<out>/images/`` and a report.

Images are named after the SHA-256 of their bytes, so that the name is safe whatever the source called them. The report
is written last and marks a finished conversion; an interrupted one goes on when the same command is repeated.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from nni_hyperfd.datasets import resumable
from nni_hyperfd.datasets.coco import FACE, Record
from nni_hyperfd.datasets.convert.cleaning import MISSING, OUTSIDE, UNREADABLE, Changes, CleanPicture, clean
from nni_hyperfd.datasets.convert.layouts import LAYOUTS
from nni_hyperfd.datasets.convert.record import ConvertError, Face
from nni_hyperfd.datasets.convert.splitting import SPLITS, rule, split
from nni_hyperfd.files import atomic, write_json

REPORT = "report.json"
"""The report's file name."""
_SETTINGS = "conversion.json"
_MOST_LOST = 0.1  # share of the images


def convert(
    name: str,
    source: Path,
    out: Path,
    *,
    categories: Collection[str] = (),
    seed: int = 0,
    resplit: bool = False,
    allow_missing: bool = False,
) -> dict[str, Any]:
    """Convert a published data set to COCO.

    Args:
        name: its layout, one of `LAYOUTS`.
        source: the folder with the unpacked data set; for COCO a file is possible, too.
        out: a new folder, or one in which the same conversion was interrupted.
        categories: those that count as faces; if there are none, they are found out.
        seed: of the drawn splits.
        resplit: draw 6 : 1 : 3 over all images although there are official splits.
        allow_missing: go on although more than a tenth of the images is missing or unreadable.

    Returns:
        The report: `settings`; `annotated`, the number of `images` and `faces` that the source has; `splits`, for each
        split the number of `images` and of `faces` that are not ignored; `rule`, which splits are official, and how the
        others were drawn; and `changes`, for each kind of change a text with place and content of everything that was
        dropped or changed.

    Raises:
        ConvertError: the layout is unknown, the source is not in it, or too many of its images are missing.
        FolderError: `out` holds a finished conversion, one with other settings, or something else.
        OSError: a file cannot be read or written.
    """
    if name not in LAYOUTS:
        raise ConvertError(f"there is no layout '{name}'; use one of {', '.join(LAYOUTS)}.")
    if not source.exists():
        raise ConvertError(f"{source}: there is no such folder; name the one that holds the data set.")
    settings = {
        "name": name,
        "source": _printable(str(source.absolute())),
        "categories": sorted(categories),
        "seed": seed,
        "resplit": resplit,
        "allow_missing": allow_missing,
    }
    resumable.check(out / _SETTINGS, out / REPORT, settings)
    changes = Changes()
    pictures = list(clean(source, LAYOUTS[name](source, categories), changes))
    if not allow_missing:
        _check_missing(source, changes)
    if not pictures:
        kinds = ", ".join(f"{count} x {kind}" for kind, count in changes.counts().items()) or "it holds no images"
        raise ConvertError(f"{source}: nothing of it can be used ({kinds}); check the folder.")
    resumable.begin(out / _SETTINGS, settings)
    counts = _write_splits(source, out, pictures, seed, resplit)
    report = {
        "settings": settings,
        "annotated": {"images": changes.images, "faces": changes.faces},
        "splits": counts,
        "rule": rule([picture.picture.split for picture in pictures], seed, resplit),
        "changes": {kind: list(map(_printable, items)) for kind, items in changes.items.items()},
    }
    write_json(out / REPORT, report)
    (out / _SETTINGS).unlink()
    return report


def _check_missing(source: Path, changes: Changes) -> None:
    """Refuse a source of which more than a tenth of the images is missing or unreadable."""
    lost = {kind: changes.items[kind] for kind in (MISSING, UNREADABLE, OUTSIDE) if kind in changes.items}
    count = sum(map(len, lost.values()))
    if count > _MOST_LOST * changes.images:
        kinds = ", ".join(f"{len(items)} x {kind}" for kind, items in lost.items())
        first = _printable(next(iter(lost.values()))[0])
        raise ConvertError(
            f"{source}: {count} of {changes.images} images cannot be used ({kinds}; the first: {first}); images are"
            " searched where the annotations say, and by name below this folder: unpack them there, or add"
            " --allow-missing to go on with the others."
        )


def _write_splits(
    source: Path, out: Path, pictures: Sequence[CleanPicture], seed: int, resplit: bool
) -> dict[str, dict[str, int]]:
    """Write images and annotations of every split; return the numbers of images and faces."""
    (out / "images").mkdir(exist_ok=True)
    assigned = split([None if resplit else picture.picture.split for picture in pictures], seed)
    counts = {}
    for name in SPLITS:
        chosen = [picture for picture, own in zip(pictures, assigned, strict=True) if own == name]
        if chosen:
            write_json(out / f"{name}.json", _write_images(source, out, chosen))
            faces = sum(not face.ignore for picture in chosen for face in picture.picture.faces)
            counts[name] = {"images": len(chosen), "faces": faces}
    return counts


def _write_images(source: Path, out: Path, pictures: Sequence[CleanPicture]) -> dict[str, list[Record]]:
    """Put the images of a split into ``<out>/images``; return their COCO annotations."""
    images: list[Record] = []
    annotations: list[Record] = []
    for number, clean_picture in enumerate(pictures, start=1):
        path = clean_picture.picture.path
        name = clean_picture.digest + path.suffix.lower()
        place_image(path, out / "images" / name)
        origin = path.relative_to(source) if path.is_relative_to(source) else path
        size = {"width": clean_picture.width, "height": clean_picture.height}
        group = {} if clean_picture.picture.group is None else {"group": clean_picture.picture.group}
        images.append({"id": number, "file_name": name, **size, "source": _printable(str(origin)), **group})
        for face in clean_picture.picture.faces:
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 1, **_annotation(face)})
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": FACE}]}


def _annotation(face: Face) -> Record:
    """What COCO says of a face, without ids; numbers are rounded to thousandths of a pixel."""
    box = [round(value, 3) for value in face.box]
    result: Record = {"bbox": box, "area": round(box[2] * box[3], 3), "iscrowd": 0, "ignore": int(face.ignore)}
    if face.landmarks is not None:
        triples = [(*point, 2) if point else (0, 0, 0) for point in face.landmarks]
        result["keypoints"] = [value for triple in triples for value in triple]
        result["num_keypoints"] = sum(point is not None for point in face.landmarks)
    if face.wider_level is not None:
        result["wider_level"] = face.wider_level
    return result


def place_image(image: Path, target: Path) -> None:
    """Give an image another name, by a hard link, or by a copy where links are impossible.

    A `target` that exists is left as it is, for its name says what it contains.
    """
    if target.exists():
        return
    try:
        os.link(image.resolve(), target)
    except OSError:
        with atomic(target) as partial:
            shutil.copyfile(image, partial)


def _printable(text: str) -> str:
    r"""Bytes of a file name that are not UTF-8 as \x escapes."""
    return os.fsencode(text).decode("utf-8", errors="backslashreplace")
