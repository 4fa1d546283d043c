"""The annotation layouts by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from nni_hyperfd.datasets.convert import generic, lists, matlab, per_image
from nni_hyperfd.datasets.convert.aflw import aflw
from nni_hyperfd.datasets.convert.record import Picture
from nni_hyperfd.datasets.convert.yolo import yolo

LAYOUTS: dict[str, Callable[[Path, Collection[str]], Iterator[Picture]]] = {
    "coco": generic.coco,
    "voc": generic.voc,
    "yolo": yolo,
    "aflw": aflw,
    "anime": generic.voc,
    "facemask": per_image.facemask,
    "fddb": lists.fddb,
    "mafa": matlab.mafa,
    "pascal": per_image.pascal,
    "ufdd": lists.ufdd,
    "umdaa": lists.umdaa,
    "wider": lists.wider,
    "wiki": matlab.wiki,
}
"""Readers of the layouts.

Each takes the source folder (COCO: or file) and the categories that count as faces (none: found out; only `coco`, `voc`
and `yolo` use them), yields the pictures, and raises `ConvertError` for a source that is not in its layout.
"""
