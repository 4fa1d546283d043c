"""The searchable backbones: their blocks, their FLOPs, and their graphs for a graph encoder.

The space is that of the paper (Appendix B.3, Table 9): inverted residual blocks of ProxylessNAS at half the width of
MobileNetV2. Plain arithmetic: importing this module does not import torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from nni_hyperfd.space.graphs import Graphs


class ArchitectureError(ValueError):
    """Blocks or parameters that do not form a backbone of the space."""


class Block(NamedTuple):
    """An inverted residual block: 1x1 convolution to `expand` times the channels, depthwise convolution, 1x1.

    Attributes:
        expand: factor of the channels; with 1 the first convolution is left out.
        kernel: side of the depthwise convolution's kernel.
    """

    expand: int
    kernel: int


EXPANDS, KERNELS = (3, 6), (3, 5, 7)


class Stage(NamedTuple):
    """The choices for the blocks of one width.

    Attributes:
        width: channels of each block's output.
        stride: of the first block; the others have stride 1.
        depths: possible numbers of blocks.
        expands: possible expand ratios of each block.
        kernels: possible kernels of each block.
    """

    width: int
    stride: int
    depths: tuple[int, ...]
    expands: tuple[int, ...] = EXPANDS
    kernels: tuple[int, ...] = KERNELS


class Parameter(NamedTuple):
    """One parameter of the search space file: a stage's depth, or a block's expand ratio or kernel.

    Attributes:
        stage: 1 to 7.
        block: 0 for the depth of the stage, else the block in it, from 1.
        values: what can be chosen.
    """

    stage: int
    block: int
    values: tuple[int, ...]


STEM_WIDTH = 16
STAGES = (
    Stage(8, 1, (1,), (1,), (3,)),
    Stage(12, 2, (1, 2, 3)),
    Stage(16, 2, (1, 2, 3)),
    Stage(32, 2, (2, 3, 4)),
    Stage(48, 1, (3, 4)),
    Stage(80, 2, (2, 3, 4)),
    Stage(160, 1, (1,)),
)
MAP_STAGES = (3, 5, 7)
"""The stages whose outputs are the detector's feature maps, of strides 8, 16 and 32."""

RESOLUTION = (360, 640)
FLOPS_LIMIT = 730_000_000
"""Architectures need fewer FLOPs than this at 640x360.

The paper does not say what it counts. Counted here are the backbone's convolutions, a multiply-add as two operations:
MobileNetV2 of half width is then just below the limit (728.7 M), and a sixth of the architectures are. With a
multiply-add as one operation all of them would be.
"""


def _parameters() -> dict[str, Parameter]:
    named = {}
    for number, stage in enumerate(STAGES, start=1):
        named[f"stage{number}_depth"] = Parameter(number, 0, stage.depths)
        for block in range(1, max(stage.depths) + 1):
            named[f"stage{number}_block{block}_expand"] = Parameter(number, block, stage.expands)
            named[f"stage{number}_block{block}_kernel"] = Parameter(number, block, stage.kernels)
    return {name: parameter for name, parameter in named.items() if len(parameter.values) > 1}


PARAMETERS = _parameters()
"""Name in the search space file -> parameter; those with a single value are left out."""

OPERATIONS = [Block(*both) for both in itertools.product(EXPANDS, KERNELS)]
_SEARCHED = range(2, len(STAGES) + 1)  # stage 1 is the same in all architectures
_PLACES = [(stage, block) for stage in _SEARCHED for block in range(max(STAGES[stage - 1].depths))]


@dataclass(frozen=True)
class Architecture:
    """One backbone.

    Attributes:
        stages: the blocks of each of the 7 `STAGES`.

    Raises:
        ArchitectureError: the number of stages, a stage's number of blocks or a block is not in the space.
    """

    stages: tuple[tuple[Block, ...], ...]

    def __post_init__(self) -> None:
        try:
            stages = tuple(tuple(Block(*block) for block in stage) for stage in self.stages)
        except TypeError:
            raise ArchitectureError(
                f"an architecture is a list of stages of (expand ratio, kernel) blocks, not {self.stages!r}"
            ) from None
        if len(stages) != len(STAGES):
            raise ArchitectureError(f"an architecture has {len(STAGES)} stages, not {len(stages)}")
        for number, (blocks, stage) in enumerate(zip(stages, STAGES, strict=True), start=1):
            if len(blocks) not in stage.depths:
                raise ArchitectureError(f"stage {number} has {_one_of(stage.depths)} blocks, not {len(blocks)}")
            for block in blocks:
                if block.expand not in stage.expands or block.kernel not in stage.kernels:
                    raise ArchitectureError(
                        f"a block of stage {number} has an expand ratio of {_one_of(stage.expands)} and a kernel of "
                        f"{_one_of(stage.kernels)}, not {block.expand!r} and {block.kernel!r}"
                    )
        object.__setattr__(self, "stages", stages)

    @classmethod
    def largest(cls) -> Architecture:
        """Return the architecture that contains all others; it is above the FLOPs limit itself."""
        return cls(tuple((Block(max(s.expands), max(s.kernels)),) * max(s.depths) for s in STAGES))

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Architecture:
        """Make the architecture that NNI's parameters describe; names that are not in `PARAMETERS` are ignored.

        Raises:
            ArchitectureError: a parameter is missing or has a value that is not in the space, or the architecture is
                not below the FLOPs limit.
        """
        if missing := [name for name in PARAMETERS if name not in parameters]:
            raise ArchitectureError(f"the architecture lacks {', '.join(missing)}")
        values = {name: _own_value(name, parameters[name]) for name in PARAMETERS}
        architecture = cls(
            tuple(
                tuple(
                    Block(
                        values.get(f"stage{number}_block{block}_expand", stage.expands[0]),
                        values.get(f"stage{number}_block{block}_kernel", stage.kernels[0]),
                    )
                    for block in range(1, values.get(f"stage{number}_depth", stage.depths[0]) + 1)
                )
                for number, stage in enumerate(STAGES, start=1)
            )
        )
        if architecture.flops >= FLOPS_LIMIT:
            raise ArchitectureError(
                f"the architecture needs {architecture.flops / 1e6:.1f} M FLOPs at {RESOLUTION[1]}x{RESOLUTION[0]}, "
                f"the space has those below {FLOPS_LIMIT / 1e6:g} M; choose fewer blocks or smaller ones"
            )
        return architecture

    def __str__(self) -> str:
        return " | ".join(" ".join(f"e{expand}k{kernel}" for expand, kernel in blocks) for blocks in self.stages)

    @cached_property
    def flops(self) -> int:
        """FLOPs of one image of 640x360; see `FLOPS_LIMIT` for what is counted."""
        return STEM_FLOPS + sum(stage_flops(number, blocks) for number, blocks in enumerate(self.stages, start=1))


def stage_flops(number: int, blocks: Sequence[Block]) -> int:
    """Return the FLOPs of the blocks of stage `number` (1 to 7); other stages' blocks do not change them."""
    stage, scale = STAGES[number - 1], _scale(number - 1)
    channels, cells = STAGES[number - 2].width if number > 1 else STEM_WIDTH, _cells(scale)
    total = 0
    for block in blocks:
        middle = channels * block.expand
        if block.expand > 1:
            total += cells * channels * middle
        channels, cells = stage.width, _cells(scale * stage.stride)
        total += cells * middle * (block.kernel**2 + stage.width)
    return 2 * total


def inactive(parameters: Mapping[str, Any]) -> set[str]:
    """Return the names of the parameters that have no effect: those of blocks beyond the depth of their stage."""
    return {
        name
        for name, (stage, block, _) in PARAMETERS.items()
        if block > parameters.get(f"stage{stage}_depth", STAGES[stage - 1].depths[0])
    }


def graphs(architectures: Sequence[Architecture]) -> Graphs:
    """Return the searched blocks (those of stages 2 to 7) as chains, for a graph encoder.

    Operations 0 to 5 are expand ratio 3 with kernel 3, 5, 7, then expand ratio 6; stages 0 to 5 are stages 2 to 7.

    Args:
        architectures: n of them; 0 are allowed.

    Returns:
        n graphs of 19 nodes, those of blocks beyond the depth of their stage being padding.
    """
    ops = np.full((len(architectures), len(_PLACES)), -1)
    for row, architecture in zip(ops, architectures, strict=True):
        for place, (stage, block) in enumerate(_PLACES):
            if block < len(architecture.stages[stage - 1]):
                row[place] = OPERATIONS.index(architecture.stages[stage - 1][block])
    stages = np.broadcast_to([stage - _SEARCHED[0] for stage, _ in _PLACES], ops.shape)
    return Graphs.chains(ops, len(OPERATIONS), stages, len(_SEARCHED))


def _scale(stage: int) -> int:
    """Down-sampling factor of the feature map after this stage (0: after the stem)."""
    return 2 * math.prod(s.stride for s in STAGES[:stage])


def _cells(scale: int) -> int:
    """Number of cells of a feature map; convolutions of stride 2 round up."""
    return math.prod(-(-side // scale) for side in RESOLUTION)


STEM_FLOPS = 2 * _cells(2) * 3 * 3**2 * STEM_WIDTH


def _own_value(name: str, value: Any) -> int:
    values = PARAMETERS[name].values
    if isinstance(value, bool) or value not in values:
        raise ArchitectureError(f"{name} is {value!r}; it must be {_one_of(values)}")
    return int(value)


def _one_of(values: Sequence[int]) -> str:
    return " or ".join(map(str, values))
