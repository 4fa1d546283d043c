"""Weights that an architecture inherits from the largest one: which they are, and that they compute the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from mmdet.registry import MODELS
from retinaface import modules  # noqa: F401
from retinaface.backbones import SearchableMobileNetV2
from retinaface.convert import load_weights
from retinaface.options import CONFIGS, Options
from retinaface.remap import crop, grow, remap, surround
from retinaface.weight_files import save_detector

from nni_hyperfd.method.weights import WeightsError
from nni_hyperfd.space.architecture import STAGES, STEM_WIDTH, Architecture, Block

from .test_searchable import architectures

LARGEST = Architecture.largest()
ARCHITECTURES = architectures(8, seed=2)


@pytest.fixture
def largest(largest_file) -> dict[str, torch.Tensor]:
    """The largest detector's tensors, with nothing about its batch norm that is left as it was built."""
    torch.manual_seed(0)
    tensors = safetensors.torch.load_file(largest_file)
    return {name: torch.rand(t.shape) + 0.5 if ".bn." in name and t.ndim else t for name, t in tensors.items()}


def changed(stage: int, blocks: tuple[Block, ...]) -> Architecture:
    """The largest one with other blocks in one stage."""
    return Architecture((*LARGEST.stages[: stage - 1], blocks, *LARGEST.stages[stage:]))


def detector(options, architecture: Architecture) -> torch.nn.Module:
    model = options.load_config().model
    model.weights = None
    model.backbone.architecture = [[list(block) for block in stage] for stage in architecture.stages]
    return MODELS.build(model)


def build(config: str) -> torch.nn.Module:
    return MODELS.build(Options(Path(), config=CONFIGS / f"{config}.py").load_config().model)


# -- the three rules, by hand ------------------------------------------------------------------------------------------


def test_a_kernel_keeps_its_centre() -> None:
    seven = torch.arange(49.0).reshape(1, 1, 7, 7)
    assert crop(seven, (1, 1, 3, 3)).flatten().tolist() == [16, 17, 18, 23, 24, 25, 30, 31, 32]
    assert crop(seven, (1, 1, 5, 5)).flatten().tolist() == [7 * y + x for y in range(1, 6) for x in range(1, 6)]


def test_channels_are_the_first_ones() -> None:
    assert crop(torch.arange(12.0).reshape(4, 3, 1, 1), (2, 2, 1, 1)).flatten().tolist() == [0, 1, 3, 4]
    assert crop(torch.arange(4.0), (2,)).tolist() == [0, 1]
    assert crop(torch.tensor(7), ()).item() == 7


def test_a_narrower_block_keeps_the_same_channels_in_all_its_tensors(largest) -> None:
    """Stage 7 with 240 channels in place of 480, and kernel 5 in place of 7."""
    target = remap(largest, changed(7, (Block(3, 5),)))
    for tensor, kept in {
        "expand_conv.conv.weight": (slice(240),),
        "expand_conv.bn.running_mean": (slice(240),),
        "depthwise_conv.conv.weight": (slice(240), slice(None), slice(1, 6), slice(1, 6)),
        "depthwise_conv.bn.weight": (slice(240),),
        "linear_conv.conv.weight": (slice(None), slice(240)),
        "linear_conv.bn.bias": (slice(None),),
    }.items():
        name = f"backbone.stages.6.0.{tensor}"
        assert torch.equal(target[name], largest[name][kept])


def test_a_shallower_stage_keeps_its_first_blocks(largest) -> None:
    target = remap(largest, changed(3, LARGEST.stages[2][:2]))
    dropped = {name for name in largest if name.startswith("backbone.stages.2.2.")}
    assert len(dropped) == 18 and target.keys() == largest.keys() - dropped
    assert all(torch.equal(target[name], largest[name]) for name in target)


# -- every tensor ------------------------------------------------------------------------------------------------------


def test_the_largest_one_inherits_itself(largest) -> None:
    target = remap(largest, LARGEST)
    assert target.keys() == largest.keys()
    assert all(torch.equal(target[name], largest[name]) for name in largest)


def by_hand(architecture: Architecture) -> Iterator[tuple[str, tuple[slice, ...]]]:
    """Each tensor of the stages with the entries of the largest one's that it has to hold."""
    channels = STEM_WIDTH
    for stage, blocks in enumerate(architecture.stages):
        for number, (expand, kernel) in enumerate(blocks):
            middle, width = slice(channels * expand), STAGES[stage].width
            edge = (LARGEST.stages[stage][number].kernel - kernel) // 2
            window = slice(edge, edge + kernel)
            convolutions = {
                "expand_conv": (middle, slice(channels), slice(1), slice(1)),
                "depthwise_conv": (middle, slice(1), window, window),
                "linear_conv": (slice(width), middle, slice(1), slice(1)),
            }
            for convolution, entries in convolutions.items():
                if convolution == "expand_conv" and expand == 1:
                    continue
                place = f"backbone.stages.{stage}.{number}.{convolution}"
                yield f"{place}.conv.weight", entries
                for leaf in ("weight", "bias", "running_mean", "running_var"):
                    yield f"{place}.bn.{leaf}", entries[:1]
                yield f"{place}.bn.num_batches_tracked", ()
            channels = width


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=range(len(ARCHITECTURES)))
def test_every_tensor_is_accounted_for(searchable_options, largest, architecture: Architecture) -> None:
    target = remap(largest, architecture)
    expected = dict(by_hand(architecture))
    elsewhere = {name for name in largest if not name.startswith("backbone.stages.")}
    assert target.keys() == expected.keys() | elsewhere
    assert all(torch.equal(target[name], largest[name]) for name in elsewhere)
    assert all(torch.equal(target[name], largest[name][entries]) for name, entries in expected.items())
    wanted = detector(searchable_options, architecture).state_dict()
    assert {name: t.shape for name, t in target.items()} == {name: t.shape for name, t in wanted.items()}
    # Three convolutions with a weight and five tensors of batch norm each in a block that is left out.
    blocks_left_out = sum(map(len, LARGEST.stages)) - sum(map(len, architecture.stages))
    assert len(largest) - len(target) == 18 * blocks_left_out


@pytest.mark.parametrize("architecture", ARCHITECTURES[2:5], ids=range(3))
def test_what_is_inherited_computes_what_the_largest_one_computes(searchable_options, largest, architecture) -> None:
    """Where the largest one's other entries add nothing to its maps, both have the same."""
    for stage, (kept, blocks) in enumerate(zip(architecture.stages, LARGEST.stages, strict=True)):
        for number, block in enumerate(blocks):
            place = f"backbone.stages.{stage}.{number}"
            if number >= len(kept):  # what a residual block adds is zero
                largest[f"{place}.linear_conv.bn.weight"].zero_()
                largest[f"{place}.linear_conv.bn.bias"].zero_()
                continue
            project, depthwise = (
                largest[f"{place}.linear_conv.conv.weight"],
                largest[f"{place}.depthwise_conv.conv.weight"],
            )
            project[:, project.shape[1] // block.expand * kept[number].expand :] = 0
            edge = (block.kernel - kept[number].kernel) // 2
            outside = torch.ones(block.kernel, block.kernel, dtype=torch.bool)
            outside[edge : block.kernel - edge, edge : block.kernel - edge] = False
            depthwise[..., outside] = 0
    whole, part = detector(searchable_options, LARGEST), detector(searchable_options, architecture)
    whole.load_state_dict(largest)
    part.load_state_dict(remap(largest, architecture))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(part.eval()(images), whole.eval()(images), strict=True):
            for level, other in zip(ours, theirs, strict=True):
                torch.testing.assert_close(level, other, rtol=1e-4, atol=1e-4)
                assert level.std() > 1e-2


# -- from a file -------------------------------------------------------------------------------------------------------


def test_a_detector_is_loaded_from_the_largest_ones_file_or_from_its_own(searchable_options, tmp_path) -> None:
    architecture = ARCHITECTURES[2]
    inherited, again = detector(searchable_options, architecture), detector(searchable_options, architecture)
    load_weights(inherited, searchable_options.weights)
    expected = remap(safetensors.torch.load_file(searchable_options.weights), architecture)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in inherited.state_dict().items())
    save_detector(inherited, tmp_path / "own.safetensors")
    load_weights(again, tmp_path / "own.safetensors")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state_dict().items())


def test_another_architectures_file_is_refused(searchable_options, tmp_path) -> None:
    save_detector(detector(searchable_options, ARCHITECTURES[2]), tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="other.safetensors has another architecture than the detector: 'stages"):
        load_weights(detector(searchable_options, ARCHITECTURES[3]), tmp_path / "other.safetensors")


def test_another_backbones_file_is_refused(searchable_options, tmp_path) -> None:
    save_detector(build("retinaface_mobilenetv2_imagenet"), tmp_path / "wide.safetensors")
    with pytest.raises(WeightsError, match="wide.safetensors has another architecture .* MobileNetV2 of half width"):
        load_weights(detector(searchable_options, ARCHITECTURES[2]), tmp_path / "wide.safetensors")


# -- the largest one from MobileNetV2 ----------------------------------------------------------------------------------


@pytest.fixture
def mobilenet() -> torch.nn.Module:
    """A detector with half a MobileNetV2, with nothing about its batch norm that is left as it was built."""
    torch.manual_seed(1)
    model = build("retinaface_mobilenetv2")
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
    return model.eval()


def test_a_kernel_is_surrounded_with_zeros() -> None:
    three = torch.arange(9.0).reshape(1, 1, 3, 3)
    seven = surround(three, torch.Size((1, 1, 7, 7)))
    assert torch.equal(crop(seven, three.shape), three) and seven.sum() == 36
    assert surround(three, three.shape) is three


def test_the_largest_one_computes_what_the_mobilenet_does(searchable_options, mobilenet) -> None:
    whole = detector(searchable_options, LARGEST)
    whole.load_state_dict(remap(mobilenet.state_dict(), LARGEST))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(whole.eval()(images), mobilenet(images), strict=True):
            for level, other in zip(ours, theirs, strict=True):
                torch.testing.assert_close(level, other, rtol=1e-4, atol=1e-4)
                assert level.std() > 1e-3


def test_every_tensor_of_the_mobilenet_is_used_once_and_copied_into_what_it_does_not_have(mobilenet) -> None:
    seed = mobilenet.backbone.state_dict()
    for name, tensor in seed.items():  # tells the tensors apart
        seed[name] = torch.full_like(tensor, 1 + len(name) % 7) + torch.arange(len(seed))[list(seed).index(name)]
    grown = grow(seed)
    assert grown.keys() == SearchableMobileNetV2().state_dict().keys()
    values = [float(tensor.max()) for tensor in grown.values()]
    assert {float(tensor.max()) for tensor in seed.values()} <= set(values)
    # MobileNetV2 has 17 blocks, the space's largest one 20; of each of the three others two tensors are 0.
    assert len(grown) - len(seed) == 3 * 18 and values.count(0.0) == 3 * 2


def test_the_largest_one_learns_in_its_own_blocks_as_well(searchable_options, mobilenet) -> None:
    whole = detector(searchable_options, LARGEST)
    whole.load_state_dict(remap(mobilenet.state_dict(), LARGEST))
    sum(level.square().mean() for level in whole.train()(torch.randn(2, 3, 64, 64))[0]).backward()
    added = whole.backbone.stages[1][2].linear_conv.bn.weight
    ring = whole.backbone.stages[1][0].depthwise_conv.conv.weight.grad[..., 0, 0]
    assert added.abs().max() == 0 and added.grad.abs().max() > 0 and ring.abs().max() > 0


def test_any_architecture_starts_from_a_mobilenets_file(searchable_options, detector_file) -> None:
    found = detector(searchable_options, ARCHITECTURES[2])
    assert load_weights(found, detector_file) is found
    expected = remap(remap(safetensors.torch.load_file(detector_file), LARGEST), ARCHITECTURES[2])
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.state_dict().items())
