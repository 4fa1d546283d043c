"""Fills detectors with weights: our own, those of the released RetinaFace, and torchvision's ImageNet MobileNetV2.

Tensors of other projects are renamed one by one and then loaded strictly, so that each tensor is either used or named
in an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from mmdet.models import BaseDetector
from torch import Tensor, nn

from nni_hyperfd.method.weights import WeightsError, check_like
from retinaface.backbones import FaceMobileNetV2, SearchableMobileNetV2
from retinaface.remap import half_mobilenet, narrow, remap, remap_backbone
from retinaface.weight_files import read_tensors, weights_file


def load_weights(detector: BaseDetector, weights: str | Path) -> nn.Module:
    """Fill a detector, or only its backbone if the weights are those of a classifier.

    A searchable backbone also accepts the weights of the largest architecture or of half a MobileNetV2, and a narrow
    MobileNetV2 those of the full-width one (see `remap`).

    Args:
        detector: the detector to fill in place.
        weights: what `weight_files.weights_file` accepts.

    Returns:
        The filled module: `detector` or its backbone.

    Raises:
        WeightsError: there is no such file, or names or shapes differ; the message names the first such tensor.
    """
    path = weights_file(weights)
    tensors = read_tensors(path)
    part: nn.Module = detector
    if "fpn.output1.0.weight" in tensors:
        tensors = from_released(tensors)
    elif "features.0.0.weight" in tensors:
        part = detector.backbone
        tensors = _fit_backbone(part, from_torchvision(tensors))
    elif isinstance(detector.backbone, SearchableMobileNetV2) and not _same_shapes(tensors, detector.state_dict()):
        try:
            tensors = remap(tensors, detector.backbone.architecture)
        except WeightsError as error:
            raise WeightsError(f"{path} has another architecture than the detector: {error}") from None
    check_like(tensors, part.state_dict(), f"the {type(part).__name__} weights in {path}")
    part.load_state_dict(tensors)
    return part


def from_released(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the released RetinaFace (MobileNetV1 of width 0.25, trained on WIDER FACE) under our names.

    Its classes are (background, face), those of mmdet (face, background), so the class predictors are reordered.
    """
    renamed = _rename(tensors, dict(_released_names()))
    for name, tensor in renamed.items():
        if name.startswith("bbox_head.cls_convs."):
            renamed[name] = tensor.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    return renamed


def from_torchvision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of torchvision's MobileNetV2 under our names, relative to the backbone, without its classifier."""
    unused = ("features.18.", "classifier.")
    backbone = {name: tensor for name, tensor in tensors.items() if not name.startswith(unused)}
    return _rename(backbone, dict(_torchvision_names()))


def _fit_backbone(backbone: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """MobileNetV2's tensors, cut to the width and the architecture of a backbone that is derived from it."""
    if isinstance(backbone, SearchableMobileNetV2):
        return remap_backbone(narrow(tensors, half_mobilenet()), backbone.architecture)
    if isinstance(backbone, FaceMobileNetV2):
        return narrow(tensors, backbone.state_dict())
    return tensors


def _same_shapes(tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    return {name: t.shape for name, t in tensors.items()} == {name: t.shape for name, t in others.items()}


def _rename(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Rename tensors by their modules: a tensor is named after its module, with a suffix such as `.weight`."""
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
    """(their module, our module) of all modules of the released RetinaFace."""
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
    """(their module, our module) of the backbone of torchvision's MobileNetV2."""
    yield from _conv_names("features.0", "stages.0.0")
    places = [(0, block) for block in range(1, 7)] + [(1, block) for block in range(7)] + [(2, b) for b in range(4)]
    for number, (stage, block) in enumerate(places, start=1):
        theirs, ours = f"features.{number}.conv", f"stages.{stage}.{block}"
        stacked = ["depthwise_conv"] if number == 1 else ["expand_conv", "depthwise_conv"]
        for position, conv in enumerate(stacked):
            yield from _conv_names(f"{theirs}.{position}", f"{ours}.{conv}")
        yield from _conv_names(theirs, f"{ours}.linear_conv", first=len(stacked))
