"""Reading the files of a source folder: text whose names need not be UTF-8, numbers, splits named by folders."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nni_hyperfd.datasets.convert.record import Box, ConvertError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def lines(path: Path) -> list[str]:
    """Read the lines of a text file, without surrounding white space.

    Bytes that are not UTF-8 are decoded as in the file names that `os` returns.

    Raises:
        ConvertError: the file cannot be read.
    """
    try:
        return [os.fsdecode(line).strip() for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()]
    except OSError as error:
        raise ConvertError(f"{path}: cannot be read ({error.strerror}); check the source folder.") from None


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ConvertError: the file cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConvertError(f"{path}: cannot be read ({error.strerror}); check the source folder.") from None
    except UnicodeDecodeError as error:
        raise ConvertError(f"{path}: is not UTF-8 ({error.reason}); write it again as UTF-8.") from None
    except json.JSONDecodeError as error:
        raise ConvertError(f"{path}, line {error.lineno}: is no json ({error.msg}); it may be cut off.") from None


def numbers(words: Sequence[str], count: int, where: str) -> list[float]:
    """Convert the first `count` words to numbers.

    Raises:
        ConvertError: there are not as many, or one is not a number; the message begins with `where`.
    """
    try:
        values = [float(word) for word in words[:count]]
    except ValueError:
        values = []
    if len(values) < count:
        text = " ".join(words) or "an empty line"
        raise ConvertError(f"{where}: {count} numbers are due here, not '{text}'; the file may be damaged or cut off.")
    return values


def first_box(values: Sequence[float]) -> Box:
    """Take the first four numbers as a box."""
    x, y, width, height = values[:4]
    return x, y, width, height


def only(source: Path, pattern: str) -> Path:
    """Find the one file below `source` that fits `pattern`, wherever its archive was unpacked.

    Raises:
        ConvertError: there is none, or more than one.
    """
    found = sorted(source.rglob(pattern))
    if len(found) != 1:
        what = "no" if not found else f"{len(found)} files"
        raise ConvertError(f"{source}: holds {what} {pattern}; name the folder that holds one.")
    return found[0]


def images(folder: Path) -> Iterator[Path]:
    """Yield the image files below a folder, sorted."""
    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES)


def split_in(name: str) -> str | None:
    """Return the split that one word of a file name stands for (`faces_val`, `x-train2017`); None if none does, or two.

    A word ends where letters or digits do.
    """
    found = {split for word in re.split(r"[\W_]+", name) if (split := split_of(word)) is not None}
    return found.pop() if len(found) == 1 else None


def split_of_folders(path: Path, source: Path) -> str | None:
    """Return the split that the innermost folder of a file stands for, among those below the source, if any does."""
    return next(filter(None, map(split_in, reversed(path.relative_to(source).parts[:-1]))), None)


def split_of(name: str) -> str | None:
    """Return the split that a folder or file name (`train`, `valid`, `val2017`, ...) stands for, if any."""
    word = name.lower().rstrip("0123456789").removeprefix("instances_").rstrip("_-")
    return _SPLITS.get(word)
