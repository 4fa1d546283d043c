"""The annotation layouts by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from nni_hyperfd.datasets.convert import generic, lists
from nni_hyperfd.datasets.convert.record import Picture

LAYOUTS: dict[str, Callable[[Path, Collection[str]], Iterator[Picture]]] = {
    "coco": generic.coco,
    "voc": generic.voc,
    "yolo": generic.yolo,
    "fddb": lists.fddb,
    "ufdd": lists.ufdd,
    "wider": lists.wider,
}
"""Each takes the source folder (COCO: or file) and the categories to take as faces (none: found out)."""
