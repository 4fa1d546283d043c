"""Finding data sets in folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from retinaface.options import ScriptError


def data_sets(folder: Path, split: str, only: Sequence[str] | None = None) -> dict[str, Path]:
    """Data sets that have a split, by name.

    Args:
        folder: a data set, or a folder of data sets.
        split: name of the annotation file, without its ending.
        only: names of the data sets to return, in this order; all of them in alphabetical order if None.

    Raises:
        ScriptError: there is no data set with this split, or `only` names one that is not there.
    """
    found = [path for path in (folder, *sorted(folder.glob("*"))) if (path / f"{split}.json").is_file()]
    if not found:
        raise ScriptError(
            f"neither {folder} nor a folder in it has a {split}.json; name a data set or a folder of them."
        )
    folders = {path.name: path for path in (found[:1] if found[0] == folder else found)}
    if strange := [name for name in only or () if name not in folders]:
        raise ScriptError(f"--only names {', '.join(strange)}; {folder} has the data sets {', '.join(folders)}.")
    return {name: folders[name] for name in dict.fromkeys(only or folders)}
