"""The page of one task, on the client's side: what was gained on his own images, and why."""

from __future__ import annotations

from pathlib import Path


def write(experiment: Path | str, out: Path, state: Path | None = None) -> Path:
    """Write the page of an experiment, one HTML file without links to other files.

    Args:
        experiment: NNI's id of an experiment, or its folder (`EXPERIMENT_DIR/ID`).
        out: the file to write.
        state: the state in which the experiment's task is; the user's own by default.

    Returns:
        The file.

    Raises:
        FolderError: nothing of the experiment has ended yet.
        StateError: the state cannot be read.
    """
    raise NotImplementedError
