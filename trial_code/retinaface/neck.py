"""RetinaFace's feature pyramid with SSH context modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from retinaface.backbones import BATCH_NORM, LEAKY_RELU


class ContextModule(BaseModule):
    """SSH's context module: a 3x3 convolution beside stacked ones with receptive fields of 5x5 and 7x7.

    Args:
        channels: number of channels of input and output, a multiple of 4.

    Raises:
        ValueError: `channels` is not a multiple of 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels % 4:
            raise ValueError(f"out_channels of the neck is {channels}; its context modules need a multiple of 4.")
        quarter = channels // 4
        linear: dict[str, Any] = {"kernel_size": 3, "padding": 1, "norm_cfg": BATCH_NORM, "act_cfg": None}
        active = {**linear, "act_cfg": LEAKY_RELU}
        self.see3 = ConvModule(channels, channels // 2, **linear)
        self.to5 = ConvModule(channels, quarter, **active)
        self.see5 = ConvModule(quarter, quarter, **linear)
        self.to7 = ConvModule(quarter, quarter, **active)
        self.see7 = ConvModule(quarter, quarter, **linear)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        five = self.to5(x)
        return F.relu(torch.cat([self.see3(x), self.see5(five), self.see7(self.to7(five))], dim=1))


@MODELS.register_module()
class RetinaFaceNeck(BaseModule):
    """A feature pyramid from coarse to fine, then a context module for each level.

    The pyramid has 1x1 lateral convolutions; the coarser map is upsampled (nearest), added, and merged by a 3x3
    convolution. Unlike in mmdet's FPN, the merged map and not the bare sum is passed to the next level, and the
    coarsest map is not convolved.

    Args:
        in_channels: number of channels of each map, from fine to coarse.
        out_channels: number of channels of the results.
        pyramid: config of another neck that replaces the pyramid; if it returns more maps, the finest ones are used.
        init_cfg: see mmengine's BaseModule.
    """

    def __init__(
        self,
        in_channels: tuple[int, ...],
        out_channels: int,
        pyramid: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.pyramid = None
        if pyramid is not None:
            channels = {"in_channels": list(in_channels), "out_channels": out_channels}
            self.pyramid = MODELS.build({**pyramid, **channels})
        else:
            block: dict[str, Any] = {"norm_cfg": BATCH_NORM, "act_cfg": LEAKY_RELU}
            self.laterals = nn.ModuleList(ConvModule(channels, out_channels, 1, **block) for channels in in_channels)
            self.merges = nn.ModuleList(
                ConvModule(out_channels, out_channels, 3, padding=1, **block) for _ in in_channels[:-1]
            )
        self.contexts = nn.ModuleList(ContextModule(out_channels) for _ in in_channels)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Maps from fine to coarse -> as many of the same heights and widths, with `out_channels` channels."""
        return self.finish(self.begin(maps)) if self.pyramid is None else self._contexts(self.pyramid(maps))

    def begin(self, maps: tuple[Tensor, ...]) -> list[Tensor]:
        """The maps after the pyramid's lateral convolutions."""
        return [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]

    def finish(self, laterals: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The neck's results from what `begin` returns."""
        levels = list(laterals)
        for i in reversed(range(len(self.merges))):
            coarser = F.interpolate(levels[i + 1], size=levels[i].shape[-2:], mode="nearest")
            levels[i] = self.merges[i](levels[i] + coarser)
        return self._contexts(levels)

    def _contexts(self, levels: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(context(x) for context, x in zip(self.contexts, levels, strict=False))
