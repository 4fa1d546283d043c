"""Which layout a folder of images and annotations is in."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from nni_hyperfd.datasets.convert.generic import is_coco
from nni_hyperfd.datasets.convert.record import ConvertError
from nni_hyperfd.datasets.convert.sources import images, read_json
from nni_hyperfd.datasets.convert.yolo import describes_yolo, label_of

_FILES = {
    "aflw": "aflw.sqlite",
    "fddb": "FDDB-fold-*-ellipseList.txt",
    "mafa": "LabelTrainAll.mat",
    "ufdd": "UFDD_val_bbx_gt.txt",
    "umdaa": "AnnotatedAA02_TL_BR.csv",
    "wider": "wider_face_*_bbx_gt.txt",
    "wiki": "wiki.mat",
}
"""Files that only one layout has."""
_LOOKED_AT = 200  # files of each kind that are opened


def layout_of(source: Path) -> str:
    """Recognise the layout of a source, one of `layouts.LAYOUTS`.

    Raises:
        ConvertError: it is in none, or could be in several; the message says what to do.
    """
    if not source.exists():
        raise ConvertError(f"{source}: there is no such folder; name the one that holds the data set.")
    published = [name for name, pattern in _FILES.items() if source.is_dir() and any(source.rglob(pattern))]
    found = published or list(_generic(source))
    if len(found) == 1:
        return found[0]
    if found:
        raise ConvertError(
            f"{source}: its annotations could be {' or '.join(found)}; say which with --layout, or remove the others."
        )
    raise ConvertError(
        f"{source}: no annotations were found in it (COCO json, VOC xml, YOLO txt, or a published data set as it is "
        "unpacked); name the folder that holds images and annotations, or the layout with --layout."
    )


def _generic(source: Path) -> Iterator[str]:
    """The layouts that tools write, and FaceMask, which has no name of its own either."""
    if source.is_file():
        if source.suffix == ".json":
            yield "coco"
        return
    documents = [(path, read_json(path)) for path in islice(sorted(source.rglob("*.json")), _LOOKED_AT)]
    if any(is_coco(content) for _, content in documents):
        yield "coco"
    if any(isinstance(content, dict) and {"FileName", "Annotations"} <= content.keys() for _, content in documents):
        yield "facemask"
    if any(_is_voc(path) for path in islice(sorted(source.rglob("*.xml")), _LOOKED_AT)):
        yield "voc"
    if describes_yolo(source) or any(label_of(path).is_file() for path in islice(images(source), _LOOKED_AT)):
        yield "yolo"


def _is_voc(path: Path) -> bool:
    return b"<annotation" in path.read_bytes()[:500]
