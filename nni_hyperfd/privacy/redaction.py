"""What a trial prints and logs, without place and names of its images: NNI keeps it and shows it in its web UI."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO, cast

_SUFFIXES = ("jpg", "jpeg", "png", "bmp", "webp")
_IMAGE = re.compile(rf"\.({'|'.join(_SUFFIXES)})\b", re.IGNORECASE)


class Redaction:
    """Replaces a data set's folder by "DATA" and its images' names by "IMAGE"; numbers of records stay.

    Args:
        folder: the data set's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        absolute = {str(folder.absolute()), str(folder.resolve())}
        self._places = {place: "DATA" for place in sorted(absolute, key=len, reverse=True)}
        if not folder.is_absolute() and folder.name:
            self._places[f"{folder}{os.sep}"] = f"DATA{os.sep}"

    def __call__(self, text: str) -> str:
        """The text without them."""
        if _IMAGE.search(text):
            for name in self._names:
                text = text.replace(name, "IMAGE")
        for place, word in self._places.items():
            text = text.replace(place, word)
        return text

    @cached_property
    def _names(self) -> list[str]:
        """Of the images in all folders, longest first: below the data set's folder, below `images`, and alone."""
        names = set()
        for path in self._folder.rglob("*"):
            if _IMAGE.fullmatch(path.suffix):
                parts = path.relative_to(self._folder).parts
                names |= {str(Path(*parts[first:])) for first in range(len(parts))}
        return sorted(names, key=len, reverse=True)


def install(folder: Path) -> None:
    """From now on, redact what this process writes to its standard streams and to loggers."""
    redaction, made = Redaction(folder), logging.getLogRecordFactory()

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        entry = made(*args, **kwargs)
        with suppress(TypeError, ValueError):  # arguments that do not fit: logging says so when it writes the record
            entry.msg, entry.args = redaction(entry.getMessage()), ()
        return entry

    logging.setLogRecordFactory(record)
    sys.stdout, sys.stderr = (cast(TextIO, _Redacted(stream, redaction)) for stream in (sys.stdout, sys.stderr))


class _Redacted:
    """A text stream that redacts every piece that is written."""

    def __init__(self, stream: TextIO, redaction: Redaction) -> None:
        self._stream, self._redaction = stream, redaction

    def write(self, text: str) -> int:
        self._stream.write(self._redaction(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
