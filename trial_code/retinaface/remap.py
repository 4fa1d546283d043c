"""Parameter remapping (FNA, Fang et al., 2020): an architecture inherits its weights from the largest one.

Depth: a stage keeps its first blocks. Width: of an expanded block the first channels, the same ones in its three
convolutions. Kernel: the centre. Everything else of the detector has one shape in all architectures and stays.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nni_hyperfd.architecture import Architecture
from nni_hyperfd.ranker.weights import check_like
from retinaface.backbones import SearchableMobileNetV2

_BACKBONE = "backbone."


def remap(largest: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """The state dict of a detector of this architecture, from that of one with the largest.

    Tensors that stay whole share their memory with the given ones. Raises WeightsError, naming a tensor, unless the
    backbone in `largest` is the largest.
    """
    backbone = {name: tensor for name, tensor in largest.items() if name.startswith(_BACKBONE)}
    check_like(backbone, _backbone_like(Architecture.largest()), "the largest backbone, from which others inherit")
    inherited = {name: tensor for name, tensor in largest.items() if name not in backbone}
    for name, like in _backbone_like(architecture).items():
        inherited[name] = crop(backbone[name], like.shape)
    return inherited


def crop(tensor: Tensor, shape: torch.Size) -> Tensor:
    """The first entries along the first two axes (output and input channels), the centre of the others (the kernel).

    `shape` must not exceed the tensor's, and differ from it by an even number in kernels.
    """
    for axis, size in enumerate(shape):
        spare = tensor.shape[axis] - size
        tensor = tensor.narrow(axis, spare // 2 if axis > 1 else 0, size)
    return tensor.contiguous()


def _backbone_like(architecture: Architecture) -> dict[str, Tensor]:
    """Tensors of the names and shapes that a backbone has. (Under torch's meta device this takes ten times as long.)"""
    with torch.random.fork_rng(devices=[]):
        backbone = SearchableMobileNetV2(architecture.stages)
    return {_BACKBONE + name: tensor for name, tensor in backbone.state_dict().items()}
