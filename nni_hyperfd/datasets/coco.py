"""COCO face annotations, checked before use.

MMDetection silently drops most defective records, and trains on some. So a whole split is read and checked here before
any detector sees it: what cannot be right is refused with one sentence; what can be repaired is, with one warning for
each kind of repair.

Layout: ``<folder>/<split>.json``, and the images in ``<folder>/images/``, ``<folder>/`` or ``<folder>/<split>/``.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from nni_hyperfd import files
from nni_hyperfd.datasets.decoded import sizes_or_reasons
from nni_hyperfd.datasets.validation import FewFacesWarning, caution

FACE = "face"
"""Name of the one category."""
LANDMARKS = 5
"""Landmarks of a face: eyes, nose, corners of the mouth."""
WIDER_LEVELS = ("easy", "medium", "hard")
"""Values of the key `wider_level`: the easiest of WIDER FACE's evaluation lists that a face is on."""

_TOLERANCE = 0.01  # px by which rounded coordinates may exceed the image
_LARGEST = 1e9  # px; also excludes infinity and integers that are too large for a float

Record = dict[str, Any]
"""A record of a COCO file: an image, an annotation or a category."""


class AnnotationError(ValueError):
    """A data set that cannot be used; the message names file, record, reason and remedy."""


class AnnotationWarning(UserWarning):
    """Records were repaired; the message names file, kind of repair, number of records and the first of them."""


@dataclass(frozen=True)
class CocoSplit:
    """One checked split of a data set.

    Attributes:
        folder: the data set's folder.
        split: name of the split.
        category: the record of the category `face`.
        images: records with `id` (int), `file_name`, `width` and `height` (px, as the detector sees the image, that is
            after Exif rotation) and, where known, `group` (the person or camera, a text).
        annotations: records with `id` (int, at least 1), `image_id`, `category_id`, `bbox` (x, y, width, height in px,
            floats, inside the image), `area` (px^2, above 0), `iscrowd` and `ignore` (0 or 1) and, where known,
            `keypoints` (5 x (x, y, visibility)) with `num_keypoints`, and `wider_level` (one of `WIDER_LEVELS`). All
            other keys of the file are left out.
    """

    folder: Path
    split: str
    category: Record
    images: list[Record]
    annotations: list[Record]

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.images)

    @property
    def num_boxes(self) -> int:
        """Number of boxes that are trained on and count in AP: neither `ignore` nor `iscrowd`."""
        return sum(map(is_usable, self.annotations))

    def image_path(self, image: Record) -> Path:
        """Find the file of an image.

        Args:
            image: one of `images`.

        Raises:
            FileNotFoundError: the file was removed after the split was loaded.
        """
        path = _find(self.folder, self.split, image["file_name"])
        if path is None:
            raise FileNotFoundError(f"{self.folder}: image {image['file_name']} is gone since the check.")
        return path

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the checked split as COCO JSON for MMDetection.

        File names become absolute paths, which MMDetection uses unchanged, whatever its `data_prefix`.
        """
        images = [{**image, "file_name": str(self.image_path(image).absolute())} for image in self.images]
        content = {"images": images, "annotations": self.annotations, "categories": [self.category]}
        files.write_json(Path(path), content, indent=None)

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the checked records and all image bytes, wherever the folder is."""
        records = json.dumps([self.split, self.category, self.images, self.annotations], sort_keys=True)
        digest = hashlib.sha256(records.encode())
        for image in self.images:
            digest.update(hashlib.sha256(self.image_path(image).read_bytes()).digest())
        return digest.hexdigest()


def is_usable(annotation: Record) -> bool:
    """Whether a checked annotation is trained on and counts in AP: neither `ignore` nor `iscrowd`."""
    return not annotation["ignore"] and not annotation["iscrowd"]


def join(splits: Sequence[CocoSplit]) -> CocoSplit:
    """Make one split of several, which may be in different folders.

    Args:
        splits: at least one; a single one is returned as it is.

    Returns:
        All their images and annotations with new ids, from 1. Name and category are those of the first split; the
        folder is the deepest that contains all of theirs.
    """
    if len(splits) == 1:
        return splits[0]
    first = splits[0]
    folder = Path(os.path.commonpath([split.folder.absolute() for split in splits]))
    images: list[Record] = []
    annotations: list[Record] = []
    for split in splits:
        new_ids = {}
        for image in split.images:
            new_ids[image["id"]] = new_id = len(images) + 1
            name = split.image_path(image).absolute().relative_to(folder).as_posix()
            images.append({**image, "id": new_id, "file_name": name})
        for annotation in split.annotations:
            ids = {"id": len(annotations) + 1, "image_id": new_ids[annotation["image_id"]]}
            annotations.append({**annotation, **ids, "category_id": first.category["id"]})
    return CocoSplit(folder, first.split, first.category, images, annotations)


def load(folder: str | os.PathLike[str], split: str, *, strict: bool = False) -> CocoSplit:
    """Read and check ``<folder>/<split>.json`` and the images that it names.

    These defects are repaired, with one `AnnotationWarning` for each kind:

    * A box partly outside its image is clipped.
    * A missing or impossible `area` and a missing `iscrowd` are filled in.
    * Malformed `keypoints` are dropped.
    * A box thinner than a pixel becomes `ignore`, because MMDetection would drop it.
    * An annotation of a category other than `face` is left out.
    * Annotation id 0 is changed, because pycocotools reads it as "no match".
    * An image of the split `train` without a usable box is left out, because MMDetection skips it. In other splits an
      image without faces stays, as a negative one.

    A `FewFacesWarning` says how far the AP of the split `val` can be trusted if it has few faces.

    Args:
        folder: the data set's folder.
        split: name of the split, for example `train`.
        strict: raise for these defects as well.

    Raises:
        AnnotationError: anything else is wrong, or with `strict` anything at all.
    """
    folder = Path(folder)
    path = folder / f"{split}.json"
    problems = _Problems(path, strict)
    data = _read(path)
    category, others = _check_categories(problems, data["categories"])
    images = _check_images(problems, folder, split, data["images"])
    annotations = _check_annotations(problems, data["annotations"], images, category["id"], others)

    with_faces = {annotation["image_id"] for annotation in annotations if is_usable(annotation)}
    if not with_faces:
        raise AnnotationError(
            f"{path}: none of its {len(images)} images has a box of category '{FACE}' that can be used; add annotations"
            " whose 'ignore' and 'iscrowd' are 0."
        )
    if split == "train":
        for number in [number for number in images if number not in with_faces]:
            problems.repair(f"image {number}", "has no face to train on", "left out")
            del images[number]
        annotations = [annotation for annotation in annotations if annotation["image_id"] in images]
    problems.warn()
    checked = CocoSplit(folder, split, category, list(images.values()), annotations)
    if split == "val" and (text := caution(checked.num_boxes)) is not None:
        warnings.warn(f"{path.name}: {text}.", FewFacesWarning, stacklevel=2)
    return checked


class _Problems:
    """Words the errors about one annotation file, and counts its repairs."""

    def __init__(self, path: Path, strict: bool) -> None:
        self.path = path
        self.strict = strict
        self.repairs: dict[tuple[str, str], list[str]] = {}

    def error(self, where: str, reason: str, remedy: str) -> AnnotationError:
        return AnnotationError(f"{self.path}: {where} {reason}; {remedy}.")

    def repair(self, where: str, defect: str, done: str) -> None:
        """Note a repair; with `strict` raise instead."""
        if self.strict:
            raise self.error(where, defect, f"correct it, or load without strict to have it {done}")
        self.repairs.setdefault((defect, done), []).append(where)

    def warn(self) -> None:
        """Warn the caller of `load`, once for each kind of repair."""
        for (defect, done), places in self.repairs.items():
            text = f"{self.path}: {len(places)} x '{defect}', {done} (first: {places[0]})."
            warnings.warn(text, AnnotationWarning, stacklevel=3)


def _read(path: Path) -> dict[str, list[Record]]:
    """The three lists of records of a COCO file, of which nothing but this is checked."""
    text = _read_text(path)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path}: is not json ({error}); write it again, it may be cut off.") from error
    lists: dict[str, list[Record]] = {}
    for key in ("images", "annotations", "categories"):
        records = data.get(key) if isinstance(data, dict) else None
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise AnnotationError(
                f"{path}: is not COCO, as it has no list of records named '{key}'; convert it to COCO json."
            )
        lists[key] = records
    return lists


def _read_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        known = ", ".join(sorted(found.stem for found in path.parent.glob("*.json"))) or "none"
        raise AnnotationError(
            f"{path}: there is no such annotation file (splits found in the folder: {known}); give a folder that holds"
            f" {path.name}."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path}: cannot be read as text ({error}); write it as UTF-8 json.") from error
    if not text.strip():
        raise AnnotationError(f"{path}: is empty; write COCO annotations into it.")
    return text


def _check_categories(problems: _Problems, categories: list[Record]) -> tuple[Record, set[int]]:
    """The face category, and the ids of all others."""
    _check_ids(problems, "category", categories)
    faces = [category["id"] for category in categories if category.get("name") == FACE]
    if len(faces) != 1:
        names = ", ".join(repr(category.get("name")) for category in categories) or "none"
        reason = f"must hold '{FACE}' (in lower case) once, but hold {names}"
        raise problems.error("the categories", reason, f"rename the category of the faces to '{FACE}'")
    others = {category["id"] for category in categories} - set(faces)
    return {"id": faces[0], "name": FACE}, others


def _check_ids(problems: _Problems, kind: str, records: list[Record]) -> None:
    seen: set[int] = set()
    for position, record in enumerate(records, start=1):
        number = record.get("id")
        if type(number) is not int:
            raise problems.error(f"{kind} number {position}", f"has id {number!r}", "give it a whole number as id")
        if number in seen:
            raise problems.error(f"{kind} {number}", "occurs more than once", "give every one its own id")
        seen.add(number)


def _check_images(problems: _Problems, folder: Path, split: str, images: list[Record]) -> dict[int, Record]:
    """The image records by id, in the order of the file."""
    _check_ids(problems, "image", images)
    paths = [_check_file_name(problems, folder, split, image) for image in images]
    owners: dict[Path, int] = {}
    for image, path in zip(images, paths, strict=True):
        if owners.setdefault(path, image["id"]) != image["id"]:
            reason = f"names the same file as image {owners[path]}"
            raise problems.error(f"image {image['id']}", reason, "put all boxes of a file under one image record")
    checked = {}
    for image, path, size in zip(images, paths, sizes_or_reasons(folder, paths), strict=True):
        where = f"image {image['id']} ({image['file_name']})"
        if isinstance(size, str):
            remedy = f"save {path} again as JPEG, PNG, BMP or WebP, or remove the record"
            raise problems.error(where, f"cannot be decoded ({size})", remedy)
        stated = image.get("width"), image.get("height")
        if stated != size:
            reason = f"is said to be {stated[0]} x {stated[1]} px, but its file is {size[0]} x {size[1]}"
            raise problems.error(where, reason, "correct width and height, and check that the boxes fit the file")
        width, height = size
        checked[image["id"]] = {"id": image["id"], "file_name": image["file_name"], "width": width, "height": height}
        if image.get("group") is not None:
            checked[image["id"]]["group"] = _check_group(problems, where, image["group"])
    return checked


def _check_group(problems: _Problems, where: str, group: Any) -> str:
    """The person or camera that an image is of."""
    if isinstance(group, bool) or not isinstance(group, (str, int)):
        raise problems.error(where, f"has the group {group!r}", "name one person or camera, or leave the key out")
    return str(group)


def _check_file_name(problems: _Problems, folder: Path, split: str, image: Record) -> Path:
    """The image's file, which must exist and be named by a path inside the data set."""
    where = f"image {image['id']}"
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise problems.error(where, f"has the file name {name!r}", "name its file relative to the image folder")
    # A Windows path is split at both kinds of slash and has drives, so it finds what is unsafe on either system.
    if name.startswith(("/", "\\")) or PureWindowsPath(name).drive or ".." in PureWindowsPath(name).parts:
        reason = f"has the file name {name!r}, which is absolute or leads out of the data set"
        raise problems.error(where, reason, "name its file relative to the image folder")
    path = _find(folder, split, name)
    if path is None:
        raise problems.error(where, f"has no file {name}", f"put it into {folder / 'images'} or remove the record")
    return path


def _find(folder: Path, split: str, name: str) -> Path | None:
    places = (folder / "images" / name, folder / name, folder / split / name)
    return next((path for path in places if path.is_file()), None)


def _check_annotations(
    problems: _Problems, annotations: list[Record], images: dict[int, Record], face: int, others: set[int]
) -> list[Record]:
    """The annotations of faces; `face` and `others` are the ids of the categories."""
    _check_ids(problems, "annotation", annotations)
    unused_id = max((annotation["id"] for annotation in annotations), default=0) + 1
    checked = []
    for annotation in annotations:
        where = f"annotation {annotation['id']}"
        category, image = annotation.get("category_id"), annotation.get("image_id")
        if type(category) is not int or category not in {face, *others}:
            raise problems.error(where, f"has the unknown category {category!r}", f"use {face}, the id of '{FACE}'")
        if type(image) is not int or image not in images:
            raise problems.error(where, f"is of the unknown image {image!r}", "add that image or remove the annotation")
        if category != face:
            problems.repair(where, f"is of another category than '{FACE}'", "left out")
            continue
        result = _check_annotation(problems, where, annotation, images[image])
        if result["id"] == 0:
            problems.repair(where, "has id 0, which evaluation reads as 'no match'", "renumbered")
            result["id"] = unused_id
        checked.append(result)
    return checked


def _check_annotation(problems: _Problems, where: str, annotation: Record, image: Record) -> Record:
    """A face's annotation with the keys of `CocoSplit.annotations`."""
    result = {key: annotation[key] for key in ("id", "image_id", "category_id")}
    for key in ("iscrowd", "ignore"):
        if annotation.get(key, 0) not in (0, 1):
            raise problems.error(where, f"has {key} {annotation[key]!r}", "use 0 or 1")
        result[key] = int(annotation.get(key, 0))
    if "iscrowd" not in annotation:
        problems.repair(where, "has no 'iscrowd'", "filled with 0")
    if (level := annotation.get("wider_level")) is not None:
        if level not in WIDER_LEVELS:
            raise problems.error(where, f"has wider_level {level!r}", f"use one of {', '.join(WIDER_LEVELS)}, or none")
        result["wider_level"] = level
    result["bbox"] = box = _clip(problems, where, annotation.get("bbox"), image)
    if min(box[2:]) < 1 and not result["ignore"]:
        problems.repair(where, "is thinner than one pixel", "marked as 'ignore'")
        result["ignore"] = 1
    result["area"] = _check_area(problems, where, annotation, box)
    return result | _check_keypoints(problems, where, annotation.get("keypoints"))


def _check_area(problems: _Problems, where: str, annotation: Record, box: list[float]) -> float:
    """The area of the object in px^2; at most that of its box, where the box was clipped."""
    area = annotation.get("area")
    if not isinstance(area, (int, float)) or not _are_numbers([area]) or area <= 0:
        problems.repair(where, "has no valid 'area'", "filled with that of its box")
        return box[2] * box[3]
    return area if list(annotation["bbox"]) == box else min(float(area), box[2] * box[3])


def _check_keypoints(problems: _Problems, where: str, keypoints: Any) -> Record:
    """The keys `keypoints` and `num_keypoints`; none where there are no valid ones."""
    if keypoints is None:
        return {}
    if not _is_landmarks(keypoints):
        problems.repair(where, f"has 'keypoints' other than {LANDMARKS} x (x, y, 0 to 2)", "which were dropped")
        return {}
    return {"keypoints": keypoints, "num_keypoints": sum(visible > 0 for visible in keypoints[2::3])}


def _clip(problems: _Problems, where: str, box: Any, image: Record) -> list[float]:
    """The box as four floats inside its image."""
    if not isinstance(box, list) or len(box) != 4 or not _are_numbers(box):
        raise problems.error(where, f"has the bbox {box!r}", "write x, y, width, height in pixels, four finite numbers")
    x, y, width, height = map(float, box)
    if width <= 0 or height <= 0:
        remedy = "correct width and height or remove the annotation"
        raise problems.error(where, f"has the bbox {box}, of no area", remedy)
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + width, float(image["width"])), min(y + height, float(image["height"]))
    if left >= right or top >= bottom:
        reason = f"has the bbox {box}, wholly outside its image of {image['width']} x {image['height']} px"
        raise problems.error(where, reason, "correct it or remove the annotation")
    over = max(left - x, top - y, x + width - right, y + height - bottom)
    if over > _TOLERANCE:
        problems.repair(where, "reaches outside its image", "clipped")
    # A box that is not clipped keeps its numbers to the last digit.
    return [left, top, right - left, bottom - top] if over > 0 else [x, y, width, height]


def _are_numbers(values: Iterable[Any]) -> bool:
    return all(type(value) in (int, float) and -_LARGEST < value < _LARGEST for value in values)


def _is_landmarks(keypoints: Any) -> bool:
    return (
        isinstance(keypoints, list)
        and len(keypoints) == 3 * LANDMARKS
        and _are_numbers(keypoints)
        and all(visible in (0, 1, 2) for visible in keypoints[2::3])
    )
