"""What is missing or wrong on this machine, and what to do about it."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import psutil

from nni_hyperfd.detector import trial_code
from nni_hyperfd.experiment import launch
from nni_hyperfd.experiment.launch import LaunchError
from nni_hyperfd.files import FolderError
from nni_hyperfd.platform import default_state
from nni_hyperfd.tuning.plan import Start

_GIB = 2**30
_LEAST_DISK, _LEAST_MEMORY = 1 * _GIB, 2 * _GIB  # below, an experiment will hardly come to its end
_FEW_GPU_MEMORY = 3 * _GIB  # a batch of the usual size needs more
_TRIAL = {
    "mmengine": ("mmengine", "onedl-mmengine"),
    "mmcv": ("mmcv", "mmcv-lite", "onedl-mmcv"),
    "mmdet": ("mmdet", "onedl-mmdetection"),
}
"""Modules of the trials' side, and the packages that may bring them."""
_EXPORT = ("onnx", "onnxruntime", "jinja2", "matplotlib")
_INSTALL = {
    "mmcv": "`pip install mmcv-lite==2.1.0`, or the compiled mmcv 2.1.0",
    "": "`pip install 'nni-hyperfd[detector]'`",
}


class Level(str, Enum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; tuning works."""
    WRONG = "wrong"
    """Tuning will not work."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: how bad it is.
        subject: what was looked at.
        text: what was found, and what to do.
    """

    level: Level
    subject: str
    text: str


def examine(folder: Path, start: Start, port: int = 8080) -> Iterator[Finding]:
    """Look at everything that `hyperfd tune` needs.

    Args:
        folder: where results would be written; the nearest that exists is looked at.
        start: the detector that would be used.
        port: of NNI's web UI.
    """
    yield from blocking(folder)
    yield _torch()
    yield from _exports()
    yield _port(port)
    yield _experiments()
    yield _memory()
    yield _browser()
    yield _state()
    yield _start(start)


def blocking(folder: Path) -> Iterator[Finding]:
    """Look at what an experiment cannot begin without; quick, and without importing anything large."""
    yield _nni()
    yield from _trials_side()
    yield _disk(folder)


def _nni() -> Finding:
    try:
        found = version("nni")
    except PackageNotFoundError:
        return Finding(Level.WRONG, "NNI", "it is not installed; `pip install 'nni>=3,<4'`")
    if not found.startswith("3."):
        return Finding(Level.WRONG, "NNI", f"{found} is installed; `pip install 'nni>=3,<4'`")
    if find_spec("nni_node") is None:
        return Finding(Level.WRONG, "NNI", f"{found} lacks its manager (nni_node); install nni from its wheel")
    if find_spec("pkg_resources") is None:
        return Finding(Level.WRONG, "NNI", f"nnictl {found} needs pkg_resources; `pip install 'setuptools<82'`")
    return Finding(Level.OK, "NNI", found)


def _trials_side() -> Iterator[Finding]:
    for module, packages in _TRIAL.items():
        if find_spec(module) is None:
            yield Finding(Level.WRONG, module, f"it is not installed; {_INSTALL.get(module, _INSTALL[''])}")
        else:
            yield Finding(Level.OK, module, next(filter(None, map(_version, packages)), "of unknown version"))
    try:
        yield Finding(Level.OK, "trials' code", str(trial_code()))
    except FolderError as error:
        yield Finding(Level.WRONG, "trials' code", str(error))


def _version(package: str) -> str | None:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return None


def _disk(folder: Path) -> Finding:
    present = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(present).free
    text = f"{free / _GIB:.1f} GiB free at {present}"
    if free < _LEAST_DISK:
        return Finding(Level.WRONG, "disk", f"{text}; make room, or name a folder on another disk with --out")
    return Finding(Level.OK, "disk", text)


def _torch() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding(
            Level.NOTE, "torch", f"{torch.__version__} without a GPU: a trial on 300 images takes minutes on the CPU"
        )
    free, total = torch.cuda.mem_get_info()
    text = f"{torch.__version__} on {torch.cuda.get_device_name()}, {free / _GIB:.0f} of {total / _GIB:.0f} GiB free"
    if free < _FEW_GPU_MEMORY:
        return Finding(Level.NOTE, "torch", f"{text}; if a trial runs out of memory, add --options '--batch-size 4'")
    return Finding(Level.OK, "torch", text)


def _exports() -> Iterator[Finding]:
    lacking = [module for module in _EXPORT if find_spec(module) is None]
    if lacking:
        text = f"{', '.join(lacking)} not installed, so there is no ONNX file or no report; {_INSTALL['']}"
        yield Finding(Level.NOTE, "detector, report", text)
    else:
        yield Finding(Level.OK, "detector, report", "what they need is installed")


def _port(port: int) -> Finding:
    try:
        launch.check_idle(port)
    except LaunchError:
        return Finding(Level.NOTE, f"port {port}", "it is in use; `hyperfd tune` takes a free one, nnictl needs --port")
    return Finding(Level.OK, f"port {port}", "free")


def _experiments() -> Finding:
    found = launch.running_ids()
    if not found:
        return Finding(Level.OK, "experiments", "none is running")
    text = f"NNI runs {', '.join(found)} on this machine, which share its cores and GPUs; `nnictl stop ID` ends one"
    return Finding(Level.NOTE, "experiments", text)


def _memory() -> Finding:
    available = psutil.virtual_memory().available
    text = f"{available / _GIB:.1f} GiB available, {psutil.cpu_count() or 1} cores"
    if available < _LEAST_MEMORY:
        return Finding(Level.NOTE, "memory", f"{text}; close other programs, or trials may be killed")
    return Finding(Level.OK, "memory", text)


def _browser() -> Finding:
    with suppress(webbrowser.Error):
        return Finding(Level.OK, "browser", webbrowser.get().name)
    text = "none here; look at the web UI and the report from another machine (ssh -L 8080:localhost:8080 HOST)"
    return Finding(Level.NOTE, "browser", text)


def _state() -> Finding:
    path = default_state()
    if not path.is_file():
        return Finding(Level.OK, "state", f"{path} will be made, and begin with the warm-up of the package")
    return Finding(Level.OK, "state", f"{path}, {path.stat().st_size / 2**20:.1f} MiB; `hyperfd status` says more")


def _start(start: Start) -> Finding:
    whose = "your" if start.own else "the package's"
    return Finding(Level.OK, "start", f"{whose} {start.weights.name} with {start.config.name}")


def measure_start(start: Start, data: Path, options: str = "") -> str:
    """Measure the detector to start from on the validation split of a data set.

    Args:
        start: the detector.
        data: the data set, laid out as trials read it.
        options: more options of `evaluate.py`, as on a command line.

    Returns:
        The table of `trial_code/evaluate.py`, or its last words if it fails.
    """
    command = [sys.executable, "evaluate.py", "--data", str(data), "--split", "val"]
    command += ["--weights", str(start.weights), "--config", str(start.config), *shlex.split(options)]
    ended = subprocess.run(command, cwd=trial_code(), capture_output=True, text=True, check=False)
    text = ended.stdout if ended.returncode == 0 else ended.stderr
    lines = [line for line in text.strip().splitlines() if line.strip()] or [f"exit status {ended.returncode}"]
    return "\n".join(lines if ended.returncode == 0 else lines[-1:])
