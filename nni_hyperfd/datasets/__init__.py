"""Data sets on disk: reading and checking COCO face annotations, and drawing synthetic face scenes.

The public names are loaded on first use, so that importing this package imports neither OpenCV nor torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "AnnotationError": "coco",
    "AnnotationWarning": "coco",
    "CocoSplit": "coco",
    "join": "coco",
    "load": "coco",
    "DOMAINS": "synthetic",
    "make": "synthetic",
    "write_contact_sheet": "synthetic",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
