"""EfficientDet's BiFPN (Tan et al., 2020), which mmdet's package does not contain."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from retinaface.backbones import BATCH_NORM, NEGATIVE_SLOPE

EPSILON = 1e-4


class Fusion(nn.Module):
    """Fast normalised fusion: mean of `count` maps with learned, non-negative weights, then a convolution."""

    def __init__(self, count: int, channels: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(count))
        self.conv = DepthwiseSeparableConvModule(
            channels, channels, 3, padding=1, norm_cfg=None, act_cfg=None, pw_norm_cfg=BATCH_NORM
        )

    def forward(self, *maps: Tensor) -> Tensor:
        """`count` maps (B, channels, H, W) -> one of the same shape."""
        weights = self.weights.relu()
        fused = sum(weight * x for weight, x in zip(weights, maps, strict=True)) / (weights.sum() + EPSILON)
        output: Tensor = self.conv(F.leaky_relu(fused, NEGATIVE_SLOPE))
        return output


class _Layer(nn.Module):
    """One pass from the coarsest to the finest level and one back; the second one also uses the input of the layer."""

    def __init__(self, levels: int, channels: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(Fusion(2, channels) for _ in range(levels - 1))
        self.up = nn.ModuleList(Fusion(3 if level < levels - 1 else 2, channels) for level in range(1, levels))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps from fine to coarse -> maps of the same shapes."""
        lower = list(maps)
        for i in reversed(range(len(self.down))):
            coarser = F.interpolate(lower[i + 1], size=maps[i].shape[-2:], mode="nearest")
            lower[i] = self.down[i](maps[i], coarser)
        upper = lower[:1]
        for i, fuse in enumerate(self.up, start=1):
            finer = F.max_pool2d(upper[-1], 3, stride=2, padding=1)
            inner = (maps[i], lower[i]) if i < len(self.up) else (maps[i],)
            upper.append(fuse(*inner, finer))
        return upper


@MODELS.register_module()
class BiFPN(BaseModule):
    """1x1 lateral convolutions, then layers that pass information from coarse to fine levels and back.

    Args:
        in_channels: number of channels of each map.
        out_channels: number of channels of the results.
        stack_times: number of layers, each with weights of its own.
    """

    def __init__(self, in_channels: list[int], out_channels: int, stack_times: int = 3) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(
            ConvModule(c, out_channels, 1, norm_cfg=BATCH_NORM, act_cfg=None) for c in in_channels
        )
        self.layers = nn.Sequential(*(_Layer(len(in_channels), out_channels) for _ in range(stack_times)))

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Maps from fine to coarse, each half as high and wide as the previous one -> as many of the same sizes."""
        return tuple(self.layers([lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]))
