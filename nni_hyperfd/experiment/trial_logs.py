"""What a trial wrote to its error log, for the message that tells the user why it failed. It stays on this machine."""

from __future__ import annotations

import re
from pathlib import Path

_TAIL_BYTES = 20_000
_LONGEST = 400  # characters of a sentence
# NNI's local training service keeps logs in the first kind of folder, or with a single GPU setting in the second.
_PLACES = ("environments/*/trials/{trial}/trial.stderr", "trials/{trial}/stderr")
_SHELL = re.compile(r"^\S*sh: (line )?(\d+: )+")  # what a shell puts before its own messages


def error_log(experiment_folder: Path, trial_id: str) -> Path | None:
    """Return the file with what a trial wrote to stderr; None where there is none, as for trials on other machines."""
    for place in _PLACES:
        for path in sorted(experiment_folder.glob(place.format(trial=trial_id))):
            return path
    return None


def last_sentence(log: Path) -> str | None:
    """Return the last line of an error log that says something: what a script or a traceback ends with."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    said = [line for line in lines if any(map(str.isalnum, line))]
    if not said:
        return None
    return _SHELL.sub("", said[-1]).rstrip(".")[:_LONGEST]


def reason_of(experiment_folder: Path, trial_id: str) -> str:
    """Return why a trial has failed, in its own words, and where the rest of its log is."""
    log = error_log(experiment_folder, trial_id)
    if log is None:
        return "its log, in the web UI or on the machine where it ran, says why"
    sentence = last_sentence(log)
    if sentence is None:
        return f"it was ended from outside, perhaps for lack of memory, or wrote nothing; its log is {log}"
    return f"{sentence}; its log is {log}"
