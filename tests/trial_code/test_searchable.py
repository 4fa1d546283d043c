"""The searchable backbone: any architecture of the space, as it is counted and as it is wanted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from retinaface import modules  # noqa: F401
from retinaface.backbones import FaceMobileNetV2, SearchableMobileNetV2
from torch.utils.flop_counter import FlopCounterMode

from nni_hyperfd.space import PARAMETERS, Architecture, ArchitectureError, ArchitectureSpace
from nni_hyperfd.space.architecture import RESOLUTION

MOBILENET = [[[1, 3]], [[6, 3]] * 2, [[6, 3]] * 3, [[6, 3]] * 4, [[6, 3]] * 3, [[6, 3]] * 3, [[6, 3]]]


def architectures(n: int, seed: int = 0) -> list[Architecture]:
    """Drawn from the space; the smallest and the largest come first."""
    space, rng = ArchitectureSpace.of({name: p.values for name, p in PARAMETERS.items()}), np.random.default_rng(seed)
    smallest = Architecture.of({name: p.values[0] for name, p in PARAMETERS.items()})
    return [smallest, Architecture.largest(), *(Architecture.of(space.sample(rng)) for _ in range(n - 2))]


def counted(backbone: type[torch.nn.Module], **arguments) -> tuple[int, list[torch.Size]]:
    """FLOPs by torch's own counter and the shapes of the maps, without computing either."""
    network, images = backbone(**arguments).eval().to("meta"), torch.empty(1, 3, *RESOLUTION, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        maps = network(images)
    return counter.get_total_flops(), [x.shape for x in maps]


def test_flops_of_50_architectures_by_torchs_counter() -> None:
    for architecture in architectures(50):
        flops, shapes = counted(SearchableMobileNetV2, architecture=architecture.stages)
        assert flops == architecture.flops
        assert shapes == [(1, 16, 45, 80), (1, 48, 23, 40), (1, 160, 12, 20)]


def test_mobilenetv2_of_half_width_is_a_point_of_the_space() -> None:
    flops, shapes = counted(FaceMobileNetV2, width=0.5)
    assert (flops, shapes) == counted(SearchableMobileNetV2, architecture=MOBILENET)
    assert flops == Architecture(MOBILENET).flops


def test_the_config_builds_the_largest_one_and_every_block_is_as_chosen(searchable_options) -> None:
    model = searchable_options.load_config().model
    assert MODELS.build(model).backbone.architecture == Architecture.largest()
    for architecture in architectures(5, seed=1):
        model.backbone.architecture = [[list(block) for block in stage] for stage in architecture.stages]
        backbone = MODELS.build(model).backbone
        convolutions = [[block.depthwise_conv.conv for block in stage] for stage in backbone.stages]
        inputs = [16, *(stage[-1].linear_conv.conv.out_channels for stage in backbone.stages)]
        for number, (stage, chosen) in enumerate(zip(convolutions, architecture.stages, strict=True)):
            widths = [inputs[number]] + [inputs[number + 1]] * (len(stage) - 1)
            kernels = [
                (conv.in_channels // width, conv.kernel_size[0]) for conv, width in zip(stage, widths, strict=True)
            ]
            assert kernels == list(chosen) and all(conv.groups == conv.in_channels for conv in stage)
        assert inputs == [16, 8, 12, 16, 32, 48, 80, 160]
        assert [[conv.stride[0] for conv in stage] for stage in convolutions] == [
            [stride] + [1] * (len(stage) - 1) for stride, stage in zip((1, 2, 2, 2, 1, 2, 1), convolutions, strict=True)
        ]


@pytest.mark.parametrize("architecture", architectures(3), ids=["smallest", "largest", "random"])
def test_maps_of_odd_sizes_and_gradients(architecture: Architecture) -> None:
    backbone = SearchableMobileNetV2(architecture.stages).train()
    maps = backbone(torch.randn(2, 3, 50, 70))
    assert [tuple(x.shape) for x in maps] == [(2, 16, 7, 9), (2, 48, 4, 5), (2, 160, 2, 3)]
    sum(x.square().mean() for x in maps).backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


def test_blocks_outside_the_space_are_refused() -> None:
    with pytest.raises(ArchitectureError, match="a block of stage 7 has .* not 6 and 9"):
        SearchableMobileNetV2([*MOBILENET[:6], [[6, 9]]])
