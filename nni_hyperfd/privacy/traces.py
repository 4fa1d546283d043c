"""Where trials have left something about a data set on this machine, so that `hyperfd privacy forget` finds it.

Each trace is a small file of its own, for trials run side by side. They lie in the user's own folder, readable by him
alone, whatever his settings are.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs

from nni_hyperfd.privacy import caches

_PLACE = "place"
"""File with the folder of the data set."""


@dataclass(frozen=True)
class Trace:
    """A file or folder about one data set.

    Attributes:
        path: of it, absolute.
        experiment: NNI's id of the experiment that it belongs to; None for what several experiments share.
    """

    path: str
    experiment: str | None = None


def leave(data: Path, trace: Trace) -> None:
    """Note a trace of the data set in a folder."""
    content = json.dumps(asdict(trace)).encode()
    file = _home(data) / f"{hashlib.sha256(content).hexdigest()[:16]}.json"
    if not file.exists():
        caches.write(file, content)


def name_of(data: Path) -> str:
    """A name for the folder of a data set that does not tell where it lies, noted here so that `place_of` finds it."""
    note = _home(data) / _PLACE
    if not note.exists():
        caches.write(note, str(data.resolve()).encode())
    return _digest(data)


def place_of(name: str) -> Path | None:
    """The folder of a data set of this user on this machine, by its name; None if it is unknown."""
    note = _notes_of(Path(name).name) / _PLACE
    return Path(note.read_text()) if note.is_file() else None


def left(data: Path) -> list[Trace]:
    """All traces of the data set in a folder, of which some may be gone."""
    return [trace for _, trace in _notes(data)]


def remove(paths: Iterable[Path]) -> list[Path]:
    """Remove files and folders.

    Returns:
        Those that were there.

    Raises:
        OSError: one of them cannot be removed.
    """
    found = [path for path in dict.fromkeys(paths) if path.exists()]
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)  # it may have been in one of the folders
    return found


def drop(data: Path, gone: Collection[str | None]) -> None:
    """Forget where traces of these experiments were, and those of none."""
    for file, trace in _notes(data):
        if trace.experiment is None or trace.experiment in gone:
            file.unlink()
    (_home(data) / _PLACE).unlink(missing_ok=True)


def _notes(data: Path) -> list[tuple[Path, Trace]]:
    files = sorted(_home(data).glob("*.json"))
    return [(file, Trace(**json.loads(file.read_bytes()))) for file in files]


def _home(data: Path) -> Path:
    """Of the notes about one data set."""
    return _notes_of(_digest(data))


def _notes_of(name: str) -> Path:
    return Path(platformdirs.user_data_path("nni_hyperfd")) / "traces" / name


def _digest(data: Path) -> str:
    return hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:16]
