"""Finding the images that annotations name, wherever an archive was unpacked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path, PureWindowsPath

from nni_hyperfd.datasets.convert.sources import images

Finder = Callable[[Path, str], Path]
"""Finds an image by the annotation's folder and the name that the annotation gives."""


def finder(source: Path) -> Finder:
    """Make a function that finds the images of a source.

    An image is searched by the name that the annotation gives, then by its base name anywhere below the source, then by
    its base name with another suffix. The function returns the expected path if there is no such image, or if its base
    name alone is known and occurs more than once below the source.
    """
    by_name: dict[str, list[Path]] = defaultdict(list)
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in images(source):
        by_name[path.name].append(path)
        by_stem[path.stem].append(path)

    def find(folder: Path, name: str) -> Path:
        relative = PureWindowsPath(name)
        places = [folder / name, folder / "images" / name, folder.parent / "images" / name]
        if relative.anchor or ".." in relative.parts:
            places = []
        groups = [[place for place in places if place.is_file()][:1]]
        for near in (by_name.get(relative.name, []), by_stem.get(relative.stem, [])):
            groups += [[path for path in near if folder in path.parents], near]
        return next((group[0] for group in groups if len(group) == 1), folder / relative.name)

    return find


def folder_of(source: Path, name: str) -> Path:
    """Return a folder of images: directly in the source, or else the only one of that name below it.

    Args:
        source: the unpacked archives.
        name: the folder's name, with that of its parent, such as ``WIDER_val/images``.

    Returns:
        The folder; the one that is expected where there is none, or more than one.
    """
    expected = source / name
    if expected.is_dir():
        return expected
    found = [path for path in sorted(source.rglob(name)) if path.is_dir()]
    return found[0] if len(found) == 1 else expected
