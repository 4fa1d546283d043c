"""Reading the files of a source folder: text whose names need not be UTF-8, numbers, splits named by folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from nni_hyperfd.datasets.convert.record import ConvertError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def lines(path: Path) -> list[str]:
    """The lines of a text file without their ends; bytes that are no UTF-8 as in the names that `os` gives."""
    try:
        return [os.fsdecode(line).strip() for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()]
    except OSError as error:
        raise ConvertError(f"{path}: cannot be read ({error.strerror}); check the source folder.") from None


def numbers(words: Sequence[str], count: int, where: str) -> list[float]:
    """The first ``count`` words as numbers."""
    try:
        values = [float(word) for word in words[:count]]
    except ValueError:
        values = []
    if len(values) < count:
        text = " ".join(words) or "an empty line"
        raise ConvertError(f"{where}: {count} numbers are due here, not '{text}'; the file may be damaged or cut off.")
    return values


def only(source: Path, pattern: str) -> Path:
    """The one file below ``source`` that fits ``pattern``, wherever its archive was unpacked."""
    found = sorted(source.rglob(pattern))
    if len(found) != 1:
        what = "no" if not found else f"{len(found)} files"
        raise ConvertError(f"{source}: holds {what} {pattern}; name the folder that holds one.")
    return found[0]


def images(folder: Path) -> Iterator[Path]:
    """Image files below a folder, sorted."""
    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES)


def split_of(name: str) -> str | None:
    """The split that a folder or file name stands for (`train`, `valid`, `val2017`, ...), None if for none."""
    word = name.lower().rstrip("0123456789").removeprefix("instances_").rstrip("_-")
    return _SPLITS.get(word)
