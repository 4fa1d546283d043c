"""Files about single images that stay on the owner's machine: private, and gone after a while."""

from __future__ import annotations

import os
import time
from pathlib import Path

from nni_hyperfd.files import atomic

DAYS = 30
"""Days after which a cached file is removed, counted from when it was written."""

_DAY = 86400  # seconds; clocks of a shared folder's machines may differ by some


def write(path: Path, content: bytes, durable: bool = False) -> None:
    """Write a file completely or not at all, readable by its owner alone.

    Args:
        path: the file.
        content: of the file.
        durable: whether it must be on disk when this returns, also after a power failure.
    """
    with atomic(path) as partial:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def expire(folder: Path) -> None:
    """Remove the image features and image sizes in a folder that were written more than `DAYS` ago.

    A file from the future is removed as well: the clock was set back, so its age is not known.
    """
    now = time.time()
    for path in (*folder.glob("*.safetensors"), *folder.glob("decoded/*.json")):
        try:
            if not now - DAYS * _DAY < path.stat().st_mtime < now + _DAY:
                path.unlink()
        except FileNotFoundError:
            continue  # another trial was faster
