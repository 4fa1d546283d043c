"""One conversion: from a source folder to ``<out>/{train,val,test}.json``, ``<out>/images/`` and a report.

Images are named by the sha256 of their bytes, so that the name is safe whatever the source called them. The report is
written last: it marks a finished conversion. A run that was ended before that is continued by the same command.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from nni_hyperfd.datasets.convert.cleaning import Changes, Clean, clean
from nni_hyperfd.datasets.convert.layouts import LAYOUTS
from nni_hyperfd.datasets.convert.record import ConvertError, Face
from nni_hyperfd.datasets.convert.splitting import split

REPORT = "report.json"
_BEGUN = "conversion.json"


def convert(
    name: str, source: Path, out: Path, *, categories: Collection[str] = (), seed: int = 0, resplit: bool = False
) -> dict[str, Any]:
    """Convert ``source``, which is in the layout ``name``, into the new folder ``out``; returns the report.

    ``resplit`` draws 6 : 1 : 3 over all images even where there are official splits. The report holds ``settings``;
    per split the number of ``images`` and of ``faces`` (those not ignored); and under ``changes``, by kind, the place
    and text of everything that was dropped or changed.

    Raises ConvertError for a source that is not in that layout, an unknown layout, and an ``out`` that holds something
    else or a finished conversion; OSError where the disk refuses.
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
    }
    _check(out, settings)
    changes = Changes()
    pictures = list(clean(source, LAYOUTS[name](source, categories), changes))
    if not pictures:
        kinds = ", ".join(f"{count} x {kind}" for kind, count in changes.counts().items()) or "it holds no images"
        raise ConvertError(f"{source}: nothing of it can be used ({kinds}); check the folder.")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / _BEGUN, settings)
    (out / "images").mkdir(exist_ok=True)
    splits = split([None if resplit else picture.picture.split for picture in pictures], seed)
    counts = {}
    for part in ("train", "val", "test"):
        chosen = [picture for picture, own in zip(pictures, splits, strict=True) if own == part]
        if chosen:
            write_json(out / f"{part}.json", _coco(source, out, chosen))
            faces = sum(not face.ignore for picture in chosen for face in picture.picture.faces)
            counts[part] = {"images": len(chosen), "faces": faces}
    listed = {kind: list(map(_printable, items)) for kind, items in changes.items.items()}
    report = {"settings": settings, "splits": counts, "changes": listed}
    write_json(out / REPORT, report)
    (out / _BEGUN).unlink()
    return report


def _check(out: Path, settings: dict[str, Any]) -> None:
    """Refuse an ``out`` that is neither new nor holds a conversion with these settings that was begun."""
    if (out / REPORT).exists():
        raise ConvertError(f"{out}: holds a finished conversion; name another folder, or remove this one to redo it.")
    if (out / _BEGUN).exists():
        if json.loads((out / _BEGUN).read_text()) != settings:
            raise ConvertError(f"{out}: holds the beginning of another conversion; name another folder or remove it.")
    elif out.is_file() or (out.exists() and {path.name for path in out.iterdir()} - {_partial(out / _BEGUN).name}):
        raise ConvertError(f"{out}: is not empty; name a new folder.")


def _coco(source: Path, out: Path, pictures: list[Clean]) -> dict[str, Any]:
    images, annotations = [], []
    for number, clean_picture in enumerate(pictures, start=1):
        path = clean_picture.picture.path
        name = clean_picture.digest + path.suffix.lower()
        place_image(path, out / "images" / name)
        origin = path.relative_to(source) if path.is_relative_to(source) else path
        size = {"width": clean_picture.width, "height": clean_picture.height}
        images.append({"id": number, "file_name": name, **size, "source": _printable(str(origin))})
        for face in clean_picture.picture.faces:
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 1, **_annotation(face)})
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "face"}]}


def _annotation(face: Face) -> dict[str, Any]:
    box = [round(value, 3) for value in face.box]
    result = {"bbox": box, "area": round(box[2] * box[3], 3), "iscrowd": 0, "ignore": int(face.ignore)}
    if face.landmarks is not None:
        triples = [(*point, 2) if point else (0, 0, 0) for point in face.landmarks]
        result["keypoints"] = [value for triple in triples for value in triple]
        result["num_keypoints"] = sum(point is not None for point in face.landmarks)
    if face.wider_level is not None:
        result["wider_level"] = face.wider_level
    return result


def place_image(image: Path, target: Path) -> None:
    """Link the image to its new name, or copy it where links are impossible; never leaves half a file."""
    if target.exists():
        return
    try:
        os.link(image.resolve(), target)
    except OSError:
        partial = _partial(target)
        shutil.copyfile(image, partial)
        partial.replace(target)


def write_json(path: Path, content: object, *, indent: int | None = 1) -> None:
    """Write a whole file or none."""
    partial = _partial(path)
    partial.write_text(json.dumps(content, indent=indent))
    partial.replace(path)


def _partial(path: Path) -> Path:
    return path.with_suffix(".partial")


def _printable(text: str) -> str:
    """Bytes of a name that are no UTF-8 as \\x escapes."""
    return os.fsencode(text).decode("utf-8", errors="backslashreplace")
