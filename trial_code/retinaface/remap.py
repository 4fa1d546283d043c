"""Parameter remapping (FNA, Fang et al., 2020): a backbone inherits its weights from one of other blocks.

An architecture inherits from the largest one. Depth: a stage keeps its first blocks. Width: of an expanded block the
first channels, the same ones in its three convolutions. Kernel: the centre. Everything else of the detector has one
shape in all architectures and stays. The largest one itself can start from MobileNetV2 (`grow`), which is FNA's way
from a seed network to a super network, and half a MobileNetV2 from a whole one (`narrow`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nni_hyperfd.method.weights import check_like
from nni_hyperfd.space.architecture import Architecture
from retinaface.backbones import FaceMobileNetV2, SearchableMobileNetV2

_BACKBONE = "backbone."
_SEED_STEM = "stages.0.0"
HALF = 0.5
"""Width of the MobileNetV2 whose blocks are those of the architecture space."""


def remap(detector: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """The state dict of a detector of this architecture, from that of one with the largest or with half a MobileNetV2.

    Tensors that stay whole share their memory with the given ones. Raises WeightsError, naming a tensor, if the given
    backbone is another one.
    """
    backbone = {n.removeprefix(_BACKBONE): t for n, t in detector.items() if n.startswith(_BACKBONE)}
    inherited = {name: tensor for name, tensor in detector.items() if not name.startswith(_BACKBONE)}
    return inherited | {_BACKBONE + name: t for name, t in remap_backbone(backbone, architecture).items()}


def remap_backbone(backbone: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """`remap` for the backbone alone, by names relative to it."""
    if f"{_SEED_STEM}.conv.weight" in backbone:
        backbone = grow(backbone)
    check_like(backbone, _backbone_like(Architecture.largest()), "the largest backbone, from which others inherit")
    return narrow(backbone, _backbone_like(architecture))


def grow(mobilenet: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The largest backbone from half a MobileNetV2, of which it computes the same maps.

    Kernels are surrounded with zeros. Blocks that MobileNetV2 does not have are copies of the last one of their stage
    whose last normalisation is 0: they add nothing until they are trained. Raises WeightsError, naming a tensor, unless
    the given ones are those of a FaceMobileNetV2 of width 0.5.
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
    """Those of the tensors that `like` has as well, cropped to its shapes."""
    return {name: crop(tensors[name], template.shape) for name, template in like.items() if name in tensors}


def crop(tensor: Tensor, shape: torch.Size) -> Tensor:
    """The first entries along the first two axes (output and input channels), the centre of the others (the kernel).

    An axis that is shorter than in `shape` stays as it is; kernels differ by an even number.
    """
    for axis, size in enumerate(shape):
        size = min(size, tensor.shape[axis])
        spare = tensor.shape[axis] - size
        tensor = tensor.narrow(axis, spare // 2 if axis > 1 else 0, size)
    return tensor.contiguous()


def surround(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Zeros around a kernel, equally many on all sides, so that it has this shape; other tensors as they are."""
    if tensor.shape == shape:
        return tensor
    return torch.nn.functional.pad(tensor, [(shape[-1] - tensor.shape[-1]) // 2] * 4)


def _seed_name(name: str) -> tuple[str, bool]:
    """A tensor of half a MobileNetV2 from which one of the largest backbone starts, and whether that one's block is
    beyond those of MobileNetV2."""
    part, _, rest = name.partition(".")
    if part == "stem":
        return f"{_SEED_STEM}.{rest}", False
    stage, block, rest = rest.split(".", 2)
    blocks = _SEED_BLOCKS[int(stage)]
    return f"{blocks[min(int(block), len(blocks) - 1)]}.{rest}", int(block) >= len(blocks)


def _seed_blocks() -> list[list[str]]:
    """The blocks of FaceMobileNetV2 in the seven stages of the architecture space."""
    blocks = []
    for number, groups in enumerate(FaceMobileNetV2.STAGES):
        first = 0 if number else 1  # the stem
        for _, _, count, _ in groups:
            blocks.append([f"stages.{number}.{place}" for place in range(first, first + count)])
            first += count
    return blocks


_SEED_BLOCKS = _seed_blocks()


def _backbone_like(architecture: Architecture) -> dict[str, Tensor]:
    """Tensors of the names and shapes that a backbone has. (Under torch's meta device this takes ten times as long.)"""
    with torch.random.fork_rng(devices=[]):
        return SearchableMobileNetV2(architecture.stages).state_dict()


def half_mobilenet() -> dict[str, Tensor]:
    """Tensors of the names and shapes of the MobileNetV2 from which the largest backbone can start."""
    with torch.random.fork_rng(devices=[]):
        return FaceMobileNetV2(HALF).state_dict()
