"""MobileNets that return feature maps of strides 8, 16 and 32."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmdet.models.layers import InvertedResidual
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from nni_hyperfd.space.architecture import MAP_STAGES, STAGES, STEM_WIDTH, Architecture

NEGATIVE_SLOPE = 0.1
BATCH_NORM = {"type": "BN"}
LEAKY_RELU: dict[str, Any] = {"type": "LeakyReLU", "negative_slope": NEGATIVE_SLOPE}
RELU6: dict[str, Any] = {"type": "ReLU6"}


class _StagedBackbone(BaseModule):
    """Three stages in a row, which end at the strides 8, 16 and 32.

    Attributes:
        stages: the stages.
        out_channels: number of channels at the end of each stage.
    """

    stages: nn.ModuleList
    out_channels: tuple[int, ...]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> three maps (B, out_channels[i], H/8/2^i, W/8/2^i)."""
        maps = []
        x = images
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


class _Stage(nn.Sequential):
    """Blocks in a row. `deepen` adds blocks with names of another form, so that the usual blocks keep theirs."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__(*blocks)
        self._usual = len(blocks)

    def add(self, block: nn.Module) -> None:
        """Append a usual block."""
        self.add_module(str(self._usual), block)
        self._usual += 1

    def deepen(self, count: int, depth: float, make: Callable[[], nn.Module]) -> None:
        """Append blocks to a group of `count` blocks until it has `depth` times as many, rounded up."""
        for number in range(1, math.ceil(count * depth) - count + 1):
            self.add_module(f"{self._usual - 1}_{number}", make())


class _Residual(nn.Module):
    """A block beside an identity. At first it adds nothing, as its last normalisation multiplies by 0."""

    def __init__(self, block: DepthwiseSeparableConvModule) -> None:
        super().__init__()
        nn.init.zeros_(block.pointwise_conv.bn.weight)
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        output: Tensor = x + self.block(x)
        return output


@MODELS.register_module()
class FaceMobileNetV1(_StagedBackbone):
    """MobileNetV1 with LeakyReLU; the released RetinaFace has it with width 0.25.

    Args:
        width: factor of all numbers of channels.
        depth: factor of the number of blocks in each group of equal channels, rounded up; the added blocks have no
            effect until they are trained.
        act_cfg: activation function.
        init_cfg: see mmengine's BaseModule.
    """

    # (channels at width 1, stride) of the depthwise separable blocks of each stage
    STAGES = (
        ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)),
        ((512, 2), *((512, 1),) * 5),
        ((1024, 2), (1024, 1)),
    )

    def __init__(
        self,
        width: float = 0.25,
        depth: float = 1.0,
        act_cfg: dict[str, Any] = LEAKY_RELU,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)

        def block(channels: int, wide: int, stride: int = 1) -> DepthwiseSeparableConvModule:
            return DepthwiseSeparableConvModule(
                channels, wide, 3, stride=stride, padding=1, norm_cfg=BATCH_NORM, act_cfg=act_cfg
            )

        def added(wide: int) -> _Residual:
            return _Residual(block(wide, wide))

        channels = round(32 * width)
        stem = ConvModule(3, channels, 3, stride=2, padding=1, norm_cfg=BATCH_NORM, act_cfg=act_cfg)
        stages = [_Stage(stem), _Stage(), _Stage()]
        self.stages = nn.ModuleList(stages)
        for blocks, stage in zip(stages, self.STAGES, strict=True):
            for full, group in groupby(stage, key=lambda layer: layer[0]):
                wide = round(full * width)
                strides = [stride for _, stride in group]
                for stride in strides:
                    blocks.add(block(channels, wide, stride))
                    channels = wide
                blocks.deepen(len(strides), depth, partial(added, wide))
        self.out_channels = tuple(round(stage[-1][0] * width) for stage in self.STAGES)


@MODELS.register_module()
class FaceMobileNetV2(_StagedBackbone):
    """MobileNetV2 up to its last inverted residual, without the 1280-channel convolution of the classifier.

    With width 1 and ReLU6 it accepts torchvision's ImageNet weights.

    Args:
        width: factor of all numbers of channels. They are not rounded to multiples of 8, as in the half-width space of
            the HyperFD paper (8, 12, 16, 32, 48, 80, 160).
        depth: factor of the number of blocks in each group, rounded up; the added blocks have no effect until they are
            trained.
        act_cfg: activation function.
        init_cfg: see mmengine's BaseModule.
    """

    # (expansion, channels at width 1, blocks, stride) of the groups of each stage
    STAGES = (
        ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2)),
        ((6, 64, 4, 2), (6, 96, 3, 1)),
        ((6, 160, 3, 2), (6, 320, 1, 1)),
    )

    def __init__(
        self,
        width: float = 1.0,
        depth: float = 1.0,
        act_cfg: dict[str, Any] = RELU6,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)

        def added(wide: int, expansion: int) -> InvertedResidual:
            made = _inverted_residual(wide, wide, expansion, 1, act_cfg)
            nn.init.zeros_(made.linear_conv.bn.weight)  # it has an identity already
            return made

        channels = round(32 * width)
        stem = ConvModule(3, channels, 3, stride=2, padding=1, norm_cfg=BATCH_NORM, act_cfg=act_cfg)
        stages = [_Stage(stem), _Stage(), _Stage()]
        self.stages = nn.ModuleList(stages)
        for blocks, stage in zip(stages, self.STAGES, strict=True):
            for expansion, full, count, first_stride in stage:
                wide = round(full * width)
                for stride in (first_stride, *(1,) * (count - 1)):
                    blocks.add(_inverted_residual(channels, wide, expansion, stride, act_cfg))
                    channels = wide
                blocks.deepen(count, depth, partial(added, wide, expansion))
        self.out_channels = tuple(round(stage[-1][1] * width) for stage in self.STAGES)


@MODELS.register_module()
class SearchableMobileNetV2(BaseModule):
    """Any backbone of the architecture space of `nni_hyperfd.space`.

    Args:
        architecture: blocks of each of the seven stages, each as (expand ratio, kernel). None is the largest
            architecture, from which the others inherit their weights (see `remap`).
        act_cfg: activation function.
        init_cfg: see mmengine's BaseModule.

    Attributes:
        out_channels: number of channels of the three maps, at the ends of stages 3, 5 and 7.

    Raises:
        ArchitectureError: the space does not have such blocks.
    """

    out_channels = tuple(STAGES[number - 1].width for number in MAP_STAGES)

    def __init__(
        self,
        architecture: Sequence[Sequence[Sequence[int]]] | None = None,
        act_cfg: dict[str, Any] = LEAKY_RELU,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if architecture is None:
            self.architecture = Architecture.largest()
        else:
            self.architecture = Architecture(architecture)  # type: ignore[arg-type]  # it converts the lists of a config
        channels = STEM_WIDTH
        self.stem = ConvModule(3, channels, 3, stride=2, padding=1, norm_cfg=BATCH_NORM, act_cfg=act_cfg)
        self.stages = nn.ModuleList()
        for stage, chosen in zip(STAGES, self.architecture.stages, strict=True):
            blocks = nn.Sequential()
            for expand, kernel in chosen:
                stride = 1 if len(blocks) else stage.stride
                blocks.append(_inverted_residual(channels, stage.width, expand, stride, act_cfg, kernel))
                channels = stage.width
            self.stages.append(blocks)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> three maps (B, out_channels[i], H/8/2^i, W/8/2^i)."""
        maps = []
        x = self.stem(images)
        for number, stage in enumerate(self.stages, start=1):
            x = stage(x)
            if number in MAP_STAGES:
                maps.append(x)
        return tuple(maps)


def _inverted_residual(
    channels: int, out_channels: int, expand: int, stride: int, act_cfg: dict[str, Any], kernel: int = 3
) -> InvertedResidual:
    return InvertedResidual(
        channels,
        out_channels,
        channels * expand,
        kernel_size=kernel,
        stride=stride,
        with_expand_conv=expand > 1,
        norm_cfg=BATCH_NORM,
        act_cfg=act_cfg,
    )
