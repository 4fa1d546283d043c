"""Parameter remapping (FNA, Fang et al., 2020): a backbone inherits its weights from one with other blocks.

Each architecture inherits from the largest one: a stage keeps its first blocks, an expanded block its first channels
(the same ones in all three convolutions), and a kernel its centre. The rest of the detector has the same shape in all
architectures. The largest architecture can start from MobileNetV2 (`grow`), as FNA's super network does from a seed
network, and a MobileNetV2 of half width from one of full width (`narrow`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nni_hyperfd.space import Architecture
from nni_hyperfd.weights import check_like
from retinaface.backbones import FaceMobileNetV2, SearchableMobileNetV2

_BACKBONE = "backbone."
_SEED_STEM = "stages.0.0"
HALF = 0.5
"""Width of the MobileNetV2 that has the blocks of the architecture space."""


def remap(detector: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """The state dict of a detector of an architecture.

    Args:
        detector: state dict of a detector with the largest architecture, or with a MobileNetV2 of half width.
        architecture: the architecture to inherit for.

    Returns:
        The tensors; those that are not cropped share their memory with the given ones.

    Raises:
        WeightsError: the given detector has another backbone; the message names a tensor.
    """
    backbone = {n.removeprefix(_BACKBONE): t for n, t in detector.items() if n.startswith(_BACKBONE)}
    inherited = {name: tensor for name, tensor in detector.items() if not name.startswith(_BACKBONE)}
    return inherited | {_BACKBONE + name: t for name, t in remap_backbone(backbone, architecture).items()}


def remap_backbone(backbone: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """`remap` for the backbone only, with names relative to it."""
    if f"{_SEED_STEM}.conv.weight" in backbone:
        backbone = grow(backbone)
    check_like(backbone, _backbone_like(Architecture.largest()), "the largest backbone, from which others inherit")
    return narrow(backbone, _backbone_like(architecture))


def grow(mobilenet: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of the largest backbone that computes the same maps as a MobileNetV2 of half width.

    Kernels are surrounded with zeros. Blocks that MobileNetV2 does not have are copies of the last block of their
    stage, whose last normalisation is set to 0: they have no effect until they are trained.

    Raises:
        WeightsError: the tensors are not those of a FaceMobileNetV2 of width 0.5; the message names one.
    """
    check_like(mobilenet, half_mobilenet(), "the MobileNetV2 of half width, from which to start")
    grown = {}
    for name, like in _backbone_like(Architecture.largest()).items():
        source, added = _seed_name(name)
        if added and ".linear_conv.bn." in name and name.endswith(("weight", "bias")):
            grown[name] = torch.zeros_like(like)
        else:
            grown[name] = surround(mobilenet[source], like.shape)
    return grown


def narrow(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names `like` has as well, cropped to its shapes."""
    return {name: crop(tensors[name], template.shape) for name, template in like.items() if name in tensors}


def crop(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Crop a tensor: first entries of the first two axes (output and input channels), centre of the others (kernel).

    Args:
        tensor: the tensor.
        shape: size of each axis; an axis that is shorter is not changed. Sizes of kernels differ by an even number.
    """
    for axis, size in enumerate(shape):
        size = min(size, tensor.shape[axis])
        spare = tensor.shape[axis] - size
        tensor = tensor.narrow(axis, spare // 2 if axis > 1 else 0, size)
    return tensor.contiguous()


def surround(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Pad a kernel with zeros to a shape, equally on all sides; a tensor that has this shape is not changed."""
    if tensor.shape == shape:
        return tensor
    return torch.nn.functional.pad(tensor, [(shape[-1] - tensor.shape[-1]) // 2] * 4)


def _seed_name(name: str) -> tuple[str, bool]:
    """Source of a tensor of the largest backbone.

    Returns:
        Name of the tensor in the MobileNetV2 of half width, and whether MobileNetV2 does not have the block itself.
    """
    part, _, rest = name.partition(".")
    if part == "stem":
        return f"{_SEED_STEM}.{rest}", False
    stage, block, rest = rest.split(".", 2)
    blocks = _SEED_BLOCKS[int(stage)]
    return f"{blocks[min(int(block), len(blocks) - 1)]}.{rest}", int(block) >= len(blocks)


def _seed_blocks() -> list[list[str]]:
    """Names of the blocks of FaceMobileNetV2, for each of the seven stages of the architecture space."""
    blocks = []
    for number, groups in enumerate(FaceMobileNetV2.STAGES):
        first = 0 if number else 1  # the stem
        for _, _, count, _ in groups:
            blocks.append([f"stages.{number}.{place}" for place in range(first, first + count)])
            first += count
    return blocks


_SEED_BLOCKS = _seed_blocks()


def _backbone_like(architecture: Architecture) -> dict[str, Tensor]:
    """Tensors with the names and shapes of a backbone; torch's meta device would take ten times as long."""
    with torch.random.fork_rng(devices=[]):
        return dict(SearchableMobileNetV2(architecture.stages).state_dict())


def half_mobilenet() -> dict[str, Tensor]:
    """Tensors with the names and shapes of the MobileNetV2 of half width."""
    with torch.random.fork_rng(devices=[]):
        return dict(FaceMobileNetV2(HALF).state_dict())
