"""The annotation layouts by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from nni_hyperfd.datasets.convert import files, generic, lists, matlab
from nni_hyperfd.datasets.convert.aflw import aflw
from nni_hyperfd.datasets.convert.record import Picture

LAYOUTS: dict[str, Callable[[Path, Collection[str]], Iterator[Picture]]] = {
    "coco": generic.coco,
    "voc": generic.voc,
    "yolo": generic.yolo,
    "aflw": aflw,
    "anime": generic.voc,
    "facemask": files.facemask,
    "fddb": lists.fddb,
    "mafa": matlab.mafa,
    "pascal": files.pascal,
    "ufdd": lists.ufdd,
    "wider": lists.wider,
    "wiki": matlab.wiki,
}
"""Each takes the source folder (COCO: or file) and the categories to take as faces (none: found out)."""
