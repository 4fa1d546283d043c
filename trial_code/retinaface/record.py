"""What a finished trial leaves beside its detector: `trial.json`, from which the detector can be built again.

The file holds plain values only. With `detector.safetensors` it is all that is needed of a trial.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nni_hyperfd import files
from retinaface.options import ScriptError

if TYPE_CHECKING:
    from mmengine.config import Config

NAME = "trial.json"


@dataclass(frozen=True)
class Record:
    """A finished trial.

    Attributes:
        trial: NNI's id of the trial; empty without NNI.
        parameters: values of the search space.
        data: name of the data set's folder in `nni_hyperfd.privacy.traces`: NNI keeps this file, and is not to know it.
        start: weights that it started from, absolute.
        base: mmengine config of the detector that it started from, without place and files of the data set.
        config: the same with the parameters applied.
        best: highest AP@50 on the validation split, in [0, 1].
        epochs: number of epochs.
        seconds: duration of the training.
    """

    trial: str
    parameters: dict[str, Any]
    data: str
    start: str
    base: dict[str, Any]
    config: dict[str, Any]
    best: float
    epochs: int
    seconds: float

    def write(self, work_dir: Path) -> None:
        """Write the record into a trial's folder."""
        files.write_json(work_dir / NAME, asdict(self))

    @classmethod
    def read(cls, work_dir: Path) -> Record:
        """Read the record of a trial's folder.

        Raises:
            ScriptError: there is none, or it cannot be read.
        """
        try:
            return cls(**json.loads((work_dir / NAME).read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise ScriptError(f"{work_dir} holds no finished trial ({error}); name the --work-dir of one.") from error

    def tuned(self, weights: str | Path | None) -> Config:
        """The config of the tuned detector.

        Args:
            weights: what its `model.weights` is set to.
        """
        return _config(self.config, weights)

    def started(self) -> Config:
        """The config of the detector before fine-tuning, with its weights."""
        return _config(self.base, self.start)


def _config(values: Mapping[str, Any], weights: str | Path | None) -> Config:
    from mmengine.config import Config

    config = Config(copy.deepcopy(dict(values)))
    config.model.weights = None if weights is None else str(weights)
    config.model.pop("inherits", None)
    return config


def trial_id() -> str:
    """NNI's id of this trial; empty without NNI."""
    return os.environ.get("NNI_TRIAL_JOB_ID", "")
