"""From a finished experiment to a detector that runs without NNI, MMDetection and torch.

`best.write` makes the detector's folder, `onnx_detector` runs it. Whatever needs MMDetection runs in a process of its
own: a script of the trials' code, which `trial_code` finds. Nothing here imports torch or mmdet.
"""

from __future__ import annotations

from pathlib import Path

from nni_hyperfd.files import FolderError

_PACKAGE = Path(__file__).resolve().parent.parent


def trial_code() -> Path:
    """The folder of the trials' code: `finetune.py`, `configs/`, `weights/` and the package `retinaface`.

    A wheel carries it inside the package; in a checkout it lies beside the package.

    Raises:
        FolderError: the installation does not have it.
    """
    return _beside("trial_code", "finetune.py")


def search_spaces() -> Path:
    """The folder of the search spaces that come with the package: `hpo.json`, `proxylessnas.json`, ...

    Raises:
        FolderError: the installation does not have it.
    """
    return _beside("search_spaces", "hpo.json")


def _beside(name: str, file: str) -> Path:
    """A folder inside the package (wheel) or beside it (checkout), known by one of its files."""
    for folder in (_PACKAGE / name, _PACKAGE.parent / name):
        if (folder / file).is_file():
            return folder
    raise FolderError(
        f"{_PACKAGE}: this installation lacks the folder {name}; install nni-hyperfd again from its wheel"
    )
