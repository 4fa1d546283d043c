"""The layouts that annotation tools write: COCO JSON, VOC XML, YOLO TXT.

Images are searched by the name that the annotation gives, then by their base name anywhere below the source.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PureWindowsPath
from typing import Any
from xml.etree import ElementTree

from nni_hyperfd.datasets.convert.categories import faces_among
from nni_hyperfd.datasets.convert.record import Box, ConvertError, Face, Picture, Point
from nni_hyperfd.datasets.convert.sources import images, lines, numbers, read_json, split_of

Finder = Callable[[Path, str], Path]
"""Finds an image by the annotation's folder and the name that the annotation gives."""


def finder(source: Path) -> Finder:
    """Make a function that finds the images of a source.

    It returns the expected path if there is no such image, or if its base name alone is known and occurs more than once
    below the source.
    """
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in images(source):
        by_name[path.name].append(path)

    def find(folder: Path, name: str) -> Path:
        relative = PureWindowsPath(name)
        places = [folder / name, folder / "images" / name, folder.parent / "images" / name]
        if relative.anchor or ".." in relative.parts:
            places = []
        near = by_name.get(relative.name, [])
        beside = [path for path in near if folder in path.parents]
        candidates = [place for place in places if place.is_file()]
        for group in (candidates[:1], beside, near):
            if len(group) == 1:
                return group[0]
        return folder / relative.name

    return find


def coco(source: Path, wanted: Collection[str]) -> Iterator[Picture]:
    """Read a COCO JSON file, or all of a folder. The name of a file or of its folder says which split it is.

    For example `train.json`, `instances_val2017.json`, `test/_annotations.coco.json`.
    """
    files = [source] if source.is_file() else [path for path in sorted(source.rglob("*.json")) if _is_coco(path)]
    if not files:
        raise ConvertError(f"{source}: holds no COCO json (images, annotations, categories); check the folder.")
    find = finder(source.parent if source.is_file() else source)
    # A file of all images that accompanies those of the splits comes last, so that each image keeps its split.
    for file in sorted(files, key=lambda file: _coco_split(file) is None):
        yield from _read_coco(file, find, wanted)


def _coco_split(file: Path) -> str | None:
    return split_of(file.stem) or split_of(file.parent.name)


def _is_coco(path: Path) -> bool:
    data = read_json(path)
    return isinstance(data, dict) and {"images", "annotations", "categories"} <= data.keys()


def _read_coco(file: Path, find: Finder, wanted: Collection[str]) -> list[Picture]:
    data = read_json(file)
    try:
        faces = _coco_faces(file, data, wanted)
        return [
            Picture(
                find(file.parent, str(image["file_name"])),
                tuple(faces[image["id"]]),
                f"{file}, image {image['id']}",
                _coco_split(file),
            )
            for image in data["images"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ConvertError(f"{file}: is not COCO ({type(error).__name__}: {error}); check its records.") from None
    except ConvertError:
        raise
    except ValueError as error:
        raise ConvertError(f"{file}: has a box that is no four numbers ({error}); correct it.") from None


def _coco_faces(file: Path, data: dict[str, Any], wanted: Collection[str]) -> dict[object, list[Face]]:
    """The faces of every image, by its id."""
    names = {category["id"]: str(category["name"]) for category in data["categories"]}
    chosen = faces_among(set(names.values()), wanted, str(file))
    faces: dict[object, list[Face]] = {}
    for image in data["images"]:
        if image["id"] in faces:
            raise ConvertError(f"{file}: image id {image['id']} occurs twice; give every image its own.")
        faces[image["id"]] = []
    for annotation in data["annotations"]:
        if annotation["image_id"] not in faces:
            where = f"annotation {annotation.get('id')}"
            raise ConvertError(f"{file}: {where} is of the unknown image {annotation['image_id']}; remove it.")
        if names[annotation["category_id"]] in chosen:
            x, y, width, height = map(float, annotation["bbox"])
            ignore = bool(annotation.get("ignore") or annotation.get("iscrowd"))
            points = _keypoints(annotation.get("keypoints"))
            faces[annotation["image_id"]].append(Face((x, y, width, height), points, ignore))
    return faces


def _keypoints(values: object) -> tuple[Point | None, ...] | None:
    """Five landmarks from 5 x (x, y, visibility); None for anything else."""
    if not isinstance(values, list) or len(values) != 15:
        return None
    triples = [values[start : start + 3] for start in range(0, 15, 3)]
    return tuple((float(x), float(y)) if visible else None for x, y, visible in triples)


def voc(source: Path, wanted: Collection[str]) -> Iterator[Picture]:
    """Read VOC XML files, one for each image, anywhere below a folder; coordinates count from 0.

    Folders named train, valid, test are official splits; so are the lists of `ImageSets/Main`, if there are any.
    """
    trees = [(path, parse_xml(path)) for path in sorted(source.rglob("*.xml"))]
    if not trees:
        raise ConvertError(f"{source}: holds no xml files; check the folder.")
    names = {text(item, "name", path) for path, tree in trees for item in tree.iter("object")}
    chosen = faces_among(names, wanted, str(source))
    find, listed = finder(source), voc_lists(source, "Main")
    for path, tree in trees:
        split = listed.get(path.stem) if listed else split_of(path.parent.name) or split_of(path.parent.parent.name)
        faces = [
            Face(bounding_box(item, path), ignore=item.findtext("difficult", "0").strip() == "1")
            for item in tree.iter("object")
            if text(item, "name", path) in chosen
        ]
        yield Picture(find(path.parent, text(tree, "filename", path)), tuple(faces), str(path), split)


def parse_xml(path: Path) -> ElementTree.Element:
    """Read an XML file.

    Raises:
        ConvertError: the file cannot be read, or is not XML.
    """
    try:
        return ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        line = error.position[0]
        raise ConvertError(f"{path}, line {line}: is no xml ({error}); it may be cut off.") from None
    except OSError as error:
        raise ConvertError(f"{path}: cannot be read ({error.strerror}); check the source folder.") from None


def text(element: ElementTree.Element, tag: str, path: Path) -> str:
    """Return the text of an element's tag.

    Raises:
        ConvertError: there is no such tag, or it is empty; the message begins with `path`.
    """
    found = element.findtext(tag)
    if not found or not found.strip():
        raise ConvertError(f"{path}: a <{element.tag}> has no <{tag}>; complete or remove the file.")
    return found.strip()


def bounding_box(element: ElementTree.Element, path: Path) -> Box:
    """Return x, y, width and height of an element's `<bndbox>`.

    Raises:
        ConvertError: it is incomplete, or has other than numbers; the message begins with `path`.
    """
    tags = ("xmin", "ymin", "xmax", "ymax")
    corners = [text(element, f"bndbox/{tag}", path) for tag in tags]
    left, top, right, bottom = numbers(corners, 4, f"{path}, <bndbox>")
    return left, top, right - left, bottom - top


def voc_lists(source: Path, task: str) -> dict[str, str]:
    """Read ``ImageSets/<task>/{train,val,test}.txt``.

    Returns:
        The split by the stem of the annotation file; empty if there are no such lists.
    """
    splits = {}
    for split in ("train", "val", "test"):
        for file in sorted(source.rglob(f"ImageSets/{task}/{split}.txt")):
            splits.update({line.split()[0]: split for line in lines(file) if line})
    return splits


def yolo(source: Path, wanted: Collection[str]) -> Iterator[Picture]:
    """Read YOLO TXT files beside the images, or in `labels/` beside `images/`; class names from `classes.txt`, if any.

    Every image below the source belongs to it; one without a TXT file has no face. A single class is that of the faces;
    of several without names, --category takes their numbers.
    """
    found = list(images(source))
    if not found:
        raise ConvertError(f"{source}: holds no images; check the folder.")
    labels = {path: _yolo_label(path) for path in found}
    if not any(label.is_file() for label in labels.values()):
        raise ConvertError(f"{source}: none of its {len(found)} images has a txt file; check the folder.")
    rows = {path: list(_yolo_rows(label)) for path, label in labels.items()}
    files = sorted(source.rglob("classes.txt"))
    known = lines(files[0]) if files else []
    used = {kind for row in rows.values() for kind, _ in row}
    names = {kind: known[int(kind)] if int(kind) < len(known) else kind for kind in used}
    chosen = faces_among(set(names.values()), wanted, str(source))
    for path, row in rows.items():
        faces = tuple(Face(box) for kind, box in row if names[kind] in chosen)
        split = next(filter(None, map(split_of, reversed(path.relative_to(source).parts[:-1]))), None)
        yield Picture(path, faces, str(labels[path]), split, normalised=True)


def _yolo_label(image: Path) -> Path:
    """The TXT file of an image: in `labels/` in place of the innermost `images/`, if it is there, else beside it."""
    parts = list(image.with_suffix(".txt").parts)
    for index in reversed(range(len(parts) - 1)):
        if parts[index] == "images":
            moved = Path(*parts[:index], "labels", *parts[index + 1 :])
            if moved.is_file():
                return moved
            break
    return image.with_suffix(".txt")


def _yolo_rows(label: Path) -> Iterator[tuple[str, Box]]:
    """Class number and box (fractions of the image) of every line of a TXT file."""
    for number, line in enumerate(lines(label) if label.is_file() else [], start=1):
        if not line:
            continue
        kind, *rest = line.split()
        where = f"{label}, line {number}"
        if not kind.isdecimal():
            raise ConvertError(f"{where}: the class '{kind}' is no whole number; correct the line.")
        if len(rest) != 4:
            raise ConvertError(f"{where}: a class and 4 numbers are due here, not {len(rest)}; only boxes are read.")
        centre_x, centre_y, width, height = numbers(rest, 4, where)
        yield kind, (centre_x - width / 2, centre_y - height / 2, width, height)
