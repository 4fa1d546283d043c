"""mmengine's Runner, with checkpoints that hold tensors and plain values only and are loaded strictly.

mmengine pickles its message hub into every checkpoint. torch refuses to read such files unless arbitrary pickles are
allowed, which run whatever code their author put there. Here the message hub is saved as tensors instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.model import is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.utils import apply_to

from nni_hyperfd.weights import WeightsError, check_like
from retinaface.weight_files import read_checkpoint

_PLAIN = ("meta", "message_hub", "param_schedulers")
"""The parts of a checkpoint that may hold types of mmengine and of NumPy."""

_BEST = "best_ckpt"
_FILES = (_BEST, "last_ckpt")
_CONFIG = "cfg"


@RUNNERS.register_module()
class StrictRunner(Runner):
    """mmengine's Runner; the configs name it as `runner_type`, so that mmdet's own tools use it as well."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_hook(_SavePlainValues(), priority="LOWEST")

    def load_checkpoint(self, filename: str, map_location: Any = "cpu") -> dict[str, Any]:
        """Load the detector from a checkpoint of this class; `resume` restores the rest from what is returned.

        Args:
            filename: path of the checkpoint.
            map_location: where its tensors are put, as in `torch.load`.

        Returns:
            The checkpoint as `Runner.resume` expects it.

        Raises:
            WeightsError: the file is no such checkpoint, or its detector has other tensors than this one.
        """
        path = Path(filename)
        checkpoint = read_checkpoint(path, map_location)
        _restore(checkpoint, path)
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        model = self.model.module if is_model_wrapper(self.model) else self.model
        check_like(checkpoint["state_dict"], model.state_dict(), f"the detector in {path}")
        model.load_state_dict(checkpoint["state_dict"])
        self._has_loaded = True
        return checkpoint


class _SavePlainValues(Hook):
    """Replaces the values of a checkpoint that `torch.load` refuses when only weights are allowed.

    The config and the folders of files are left out, so that a checkpoint does not tell where anything lies.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        for part in _PLAIN:
            if part in checkpoint:
                checkpoint[part] = apply_to(checkpoint[part], _is_special, _plain)
        checkpoint["meta"].pop(_CONFIG, None)
        if hub := checkpoint.get("message_hub"):
            paths = {name: Path(hub["runtime_info"][name]).name for name in _FILES if name in hub["runtime_info"]}
            info = {name: value for name, value in hub["runtime_info"].items() if name != _CONFIG} | paths
            checkpoint["message_hub"] = {**hub, "runtime_info": info}


def _is_special(value: object) -> bool:
    return isinstance(value, HistoryBuffer | np.generic)


def _plain(value: HistoryBuffer | np.generic) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    values, counts = value.data
    return {"values": torch.from_numpy(values), "counts": torch.from_numpy(counts), "max_length": value.max_length}


def _restore(checkpoint: dict[str, Any], path: Path) -> None:
    """Turn the plain values of a checkpoint back into those of mmengine.

    The message hub stores the path of the best checkpoint. It is looked for beside this one, so that a moved folder
    still works and a forged checkpoint cannot name (and later delete) a file elsewhere.
    """
    checkpoint["meta"].pop("config", None)  # Runner.resume would execute it as Python source
    hub = checkpoint.get("message_hub")
    try:
        if hub is not None:
            hub["log_scalars"] = {name: _history(**history) for name, history in hub["log_scalars"].items()}
            if _BEST in hub["runtime_info"]:
                hub["runtime_info"][_BEST] = str(path.parent / Path(hub["runtime_info"][_BEST]).name)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} is not a checkpoint of a training run; remove it, or name another file.") from error


def _history(values: torch.Tensor, counts: torch.Tensor, max_length: int) -> HistoryBuffer:
    return HistoryBuffer(values.cpu().numpy(), counts.cpu().numpy(), max_length)
