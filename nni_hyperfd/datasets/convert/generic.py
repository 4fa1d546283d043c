"""Two of the layouts that annotation tools write: COCO JSON and VOC XML. `yolo` has the third."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from nni_hyperfd.datasets.convert.categories import faces_among
from nni_hyperfd.datasets.convert.finding import Finder, finder
from nni_hyperfd.datasets.convert.record import Box, ConvertError, Face, Picture, Point
from nni_hyperfd.datasets.convert.sources import lines, numbers, read_json, split_in, split_of, split_of_folders


def coco(source: Path, wanted: Collection[str]) -> Iterator[Picture]:
    """Read a COCO JSON file, or all of a folder.

    The name of a file or of its folder says which split it is, for example `train.json`, `faces_val.json`,
    `instances_val2017.json`, `test/_annotations.coco.json`; else the folder of an image does, such as `train2017/`.
    """
    files = [source] if source.is_file() else [p for p in sorted(source.rglob("*.json")) if is_coco(read_json(p))]
    if not files:
        raise ConvertError(f"{source}: holds no COCO json (images, annotations, categories); check the folder.")
    find = finder(source.parent if source.is_file() else source)
    # A file of all images that accompanies those of the splits comes last, so that each image keeps its split.
    for file in sorted(files, key=lambda file: _coco_split(file) is None):
        yield from _read_coco(file, find, wanted)


def _coco_split(file: Path) -> str | None:
    return split_in(file.stem) or split_of(file.parent.name)


def is_coco(content: object) -> bool:
    """Whether the content of a JSON file is COCO annotations."""
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys()


def _read_coco(file: Path, find: Finder, wanted: Collection[str]) -> list[Picture]:
    data, split = read_json(file), _coco_split(file)
    try:
        faces = _coco_faces(file, data, wanted)
        pictures = []
        for number, image in enumerate(data["images"], start=1):
            name = str(_entry(image, "file_name", file, "image", number))
            path = find(file.parent, name)
            where = f"{file}, image {image['id']}"
            pictures.append(Picture(path, tuple(faces[image["id"]]), where, split or split_of(path.parent.name)))
        return pictures
    except (KeyError, TypeError, AttributeError) as error:
        raise ConvertError(f"{file}: is not COCO ({type(error).__name__}: {error}); check its records.") from None


def _entry(record: dict[str, Any], key: str, file: Path, kind: str, number: int) -> Any:
    """The value of a key that a record must have."""
    if record.get(key) is None:
        name = f"{kind} {record['id']}" if "id" in record else f"{kind} number {number}"
        raise ConvertError(f"{file}: {name} has no '{key}'; complete or remove the record.")
    return record[key]


def _coco_faces(file: Path, data: dict[str, Any], wanted: Collection[str]) -> dict[object, list[Face]]:
    """The faces of every image, by its id."""
    names = {category["id"]: str(category["name"]) for category in data["categories"]}
    chosen = faces_among(set(names.values()), wanted, str(file))
    faces: dict[object, list[Face]] = {}
    for number, image in enumerate(data["images"], start=1):
        image_id = _entry(image, "id", file, "image", number)
        if image_id in faces:
            raise ConvertError(f"{file}: image id {image_id} occurs twice; give every image its own.")
        faces[image_id] = []
    for number, annotation in enumerate(data["annotations"], start=1):
        image_id = _entry(annotation, "image_id", file, "annotation", number)
        if image_id not in faces:
            where = f"annotation {annotation.get('id')}"
            raise ConvertError(f"{file}: {where} is of the unknown image {image_id}; remove it.")
        if names[_entry(annotation, "category_id", file, "annotation", number)] in chosen:
            box = _coco_box(_entry(annotation, "bbox", file, "annotation", number), annotation.get("id", number), file)
            ignore = bool(annotation.get("ignore") or annotation.get("iscrowd"))
            faces[image_id].append(Face(box, _keypoints(annotation.get("keypoints")), ignore))
    return faces


def _coco_box(value: object, annotation: object, file: Path) -> Box:
    try:
        x, y, width, height = map(float, value)  # type: ignore[call-overload]  # whatever is no sequence raises
        return x, y, width, height
    except (TypeError, ValueError):
        raise ConvertError(
            f"{file}: annotation {annotation} has the bbox {value!r}, no four numbers; correct it."
        ) from None


def _keypoints(values: object) -> tuple[Point | None, ...] | None:
    """Five landmarks from 5 x (x, y, visibility); None for anything else."""
    if not isinstance(values, list) or len(values) != 15:
        return None
    triples = [values[start : start + 3] for start in range(0, 15, 3)]
    return tuple((float(x), float(y)) if visible else None for x, y, visible in triples)


def voc(source: Path, wanted: Collection[str]) -> Iterator[Picture]:
    """Read VOC XML files, one for each image, anywhere below a folder; coordinates count from 0.

    Folders named after train, valid, test (`WIDER_train_annotations`) are official splits; so are the lists of
    `ImageSets/Main`, if there are any.
    """
    trees = [(path, parse_xml(path)) for path in sorted(source.rglob("*.xml"))]
    if not trees:
        raise ConvertError(f"{source}: holds no xml files; check the folder.")
    names = {text(item, "name", path) for path, tree in trees for item in tree.iter("object")}
    chosen = faces_among(names, wanted, str(source))
    find, listed = finder(source), voc_lists(source, "Main")
    for path, tree in trees:
        split = listed.get(path.stem) if listed else split_of_folders(path, source)
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
