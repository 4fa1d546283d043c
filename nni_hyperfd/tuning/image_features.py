"""Image features of a data set, made by the trials' own script in a process of its own."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from nni_hyperfd.detector import trial_code
from nni_hyperfd.tuning.errors import TuningError


def write(data: Path, out: Path, images: int, options: str = "") -> Path:
    """Write the image features of a data set's training split.

    Args:
        data: folder of the data set, with train.json and val.json.
        out: folder for the file.
        images: maximum number of images with features.
        options: more options of `trial_code/describe.py`, as on a command line.

    Returns:
        The file, named after the folder, as `describe.py --whole` writes it.

    Raises:
        TuningError: the script has failed.
    """
    folder = data.resolve()
    command = [sys.executable, "describe.py", "--whole", "--images", str(images), "--workers", "0"]
    command += ["--data", str(folder), "--out", str(out.resolve()), *shlex.split(options)]
    ended = subprocess.run(command, cwd=trial_code(), capture_output=True, text=True, check=False)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"])[-1]
        raise TuningError(f"{data}: it cannot be described: {last}; `hyperfd doctor` looks for the cause")
    return out / f"{folder.name}.safetensors"
