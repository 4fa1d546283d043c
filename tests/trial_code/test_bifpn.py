"""BiFPN against sums written out, and the necks that take RetinaFace's own place."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from retinaface import modules  # noqa: F401
from retinaface.bifpn import BiFPN, Fusion
from retinaface.parameters import apply_parameters


def maps(channels: list[int], finest: tuple[int, int] = (8, 12)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(finest[0] >> level, finest[1] >> level) for level in range(len(channels))]
    return [torch.randn(2, c, *size, generator=generator) for c, size in zip(channels, sizes, strict=True)]


def test_fusion_is_a_mean_with_learned_weights() -> None:
    fuse = Fusion(3, 4).eval()
    fuse.weights.data = torch.tensor([3.0, -1.0, 1.0])  # the second is below 0, so it counts for nothing
    a, b, c = (torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    mean = (3 * a + c) / 4.0001
    expected = fuse.conv(torch.where(mean > 0, mean, 0.1 * mean))
    assert torch.allclose(fuse(a, b, c), expected, atol=1e-6)


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_each_map_takes_part_as_in_the_paper(levels: int) -> None:
    """Down: input and the coarser result. Up: input, the first pass's result where there is one, the finer result."""
    torch.manual_seed(0)
    neck = BiFPN([4] * levels, 4, stack_times=1).eval()
    (layer,) = neck.layers
    given = maps([4] * levels, (16, 16))
    p = [lateral(x) for lateral, x in zip(neck.laterals, given, strict=True)]

    def up(x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    def down(x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=-torch.inf), 3, stride=2)

    inner = {levels - 1: p[-1]}
    for i in range(levels - 2, -1, -1):
        inner[i] = layer.down[i](p[i], up(inner[i + 1]))
    outer = [inner[0]]
    for i in range(1, levels - 1):
        outer.append(layer.up[i - 1](p[i], inner[i], down(outer[-1])))
    outer.append(layer.up[-1](p[-1], down(outer[-1])))
    found = neck(given)
    assert len(found) == levels
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, outer, strict=True))


def test_layers_are_stacked() -> None:
    neck = BiFPN([4, 6, 8], 4, stack_times=2).eval()
    given = maps([4, 6, 8])
    once = neck.layers[0]([lateral(x) for lateral, x in zip(neck.laterals, given, strict=True)])
    assert all(torch.equal(a, b) for a, b in zip(neck(given), neck.layers[1](once), strict=True))


@pytest.mark.parametrize("name", ["pafpn", "bifpn", "nasfpn"])
def test_a_neck_gives_the_three_maps_and_learns(options, name: str) -> None:
    config = apply_parameters(options.load_config(), {"neck": name})
    torch.manual_seed(0)
    neck = MODELS.build(config.model.neck)
    side = config.model.data_preprocessor.pad_size_divisor
    given = maps([16, 48, 160], (side // 8, side // 4))
    found = neck(given)
    assert [tuple(x.shape) for x in found] == [(2, 80, side >> s, side >> (s - 1)) for s in (3, 4, 5)]
    sum(x.square().mean() for x in found).backward()
    unused = {name for name, p in neck.named_parameters() if p.grad is None or not p.grad.any()}
    # NAS-FPN's last layer ends with two maps of strides 64 and 128 that no head reads.
    expected = ("pyramid.fpn_stages.2.sum_77_7.", "pyramid.fpn_stages.2.gp_75_6.") if name == "nasfpn" else ("no",)
    biases = {name for name in unused if name.endswith("conv.bias")}  # before a normalisation they change nothing
    assert all(name.startswith(expected) for name in unused - biases)
