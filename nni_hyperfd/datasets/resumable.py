"""Folders that one command fills: a run that was interrupted goes on when the same command is repeated.

The command's settings are noted before its first result is written, and its report last. So a folder with a report is
finished, and one with settings only was interrupted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nni_hyperfd.files import FolderError, note

_PARTIAL = re.compile(r"\..+\.[0-9a-f]{32}(\.\w+)?")  # as `nni_hyperfd.files.atomic` names what it is writing


def check(settings_file: Path, report_file: Path, settings: Mapping[str, Any]) -> None:
    """Check that a folder is new, empty, or of an interrupted run with the same settings. Nothing is written.

    Args:
        settings_file: where this command notes its settings, in its folder.
        report_file: what it writes last, in the same folder.
        settings: what its results depend on.

    Raises:
        FolderError: the folder holds a finished run, one with other settings, or something else.
    """
    folder = settings_file.parent
    if report_file.exists():
        raise FolderError(
            f"{folder}: it holds a finished run ({report_file.name}); name another folder, or remove this one to repeat"
            " the run"
        )
    if settings_file.exists():
        if not _has_all(settings_file, settings):
            raise FolderError(f"{settings_file}: it was not written by this command; name a new folder")
        note(settings_file, settings)
    elif folder.is_file() or (folder.exists() and not all(map(_is_partial, folder.iterdir()))):
        raise FolderError(f"{folder}: it is not empty; name a new folder")


def begin(settings_file: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder if necessary, note the settings, and remove files that a killed run was writing."""
    note(settings_file, settings)
    for path in settings_file.parent.rglob(".*"):
        if _is_partial(path):
            path.unlink()


def _has_all(settings_file: Path, settings: Mapping[str, Any]) -> bool:
    try:
        noted = json.loads(settings_file.read_text())
    except ValueError:
        return False
    return isinstance(noted, dict) and settings.keys() <= noted.keys()


def _is_partial(path: Path) -> bool:
    return _PARTIAL.fullmatch(path.name) is not None
