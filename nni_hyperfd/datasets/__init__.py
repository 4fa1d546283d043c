"""Face data sets on disk: checking COCO annotations, and drawing synthetic data sets.

Public names, loaded on first use so that importing the package imports neither OpenCV nor torch:

* `load` reads and checks one split of a data set, a `CocoSplit`; `join` makes one split of several.
* `AnnotationError` is raised for a data set that cannot be used; `AnnotationWarning` reports repaired records, and
  `FewFacesWarning` a validation split whose AP cannot be trusted.
* `make` draws a synthetic data set of one of the `DOMAINS`.
* `write_contact_sheet` shows images of a split with their annotations in one picture.

The subpackages `convert` (published data sets to COCO) and `subsets` (many data sets from a few) are imported by name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nni_hyperfd.datasets.coco import AnnotationError, AnnotationWarning, CocoSplit, join, load
    from nni_hyperfd.datasets.contact_sheet import write_contact_sheet
    from nni_hyperfd.datasets.synthetic import DOMAINS, make
    from nni_hyperfd.datasets.validation import FewFacesWarning

__all__ = [
    "DOMAINS",
    "AnnotationError",
    "AnnotationWarning",
    "CocoSplit",
    "FewFacesWarning",
    "join",
    "load",
    "make",
    "write_contact_sheet",
]

_MODULES = {
    "DOMAINS": "synthetic",
    "AnnotationError": "coco",
    "AnnotationWarning": "coco",
    "CocoSplit": "coco",
    "FewFacesWarning": "validation",
    "join": "coco",
    "load": "coco",
    "make": "synthetic",
    "write_contact_sheet": "contact_sheet",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
