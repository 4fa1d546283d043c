"""A detector that imitates another one: what it is shown, what it begins with, and what it saves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pretrain
import pytest
import torch
from mmdet.registry import MODELS
from retinaface.build import load_detector
from retinaface.detector import RetinaFace
from retinaface.imitation import Outputs, imitation_losses, inherited_maps, keeping_buffers, renormalised, transplant
from retinaface.options import CONFIGS, Options, ScriptError
from retinaface.remap import remap_backbone

from nni_hyperfd.space import PARAMETERS, Architecture, ArchitectureSpace

from .test_scripts import command_line

TEACHER = CONFIGS / "retinaface_wider.py"


def build(name: str) -> RetinaFace:
    torch.manual_seed(0)
    return MODELS.build(Options(Path(), config=CONFIGS / f"{name}.py").load_config().model)


def with_statistics(detector: RetinaFace) -> RetinaFace:
    """As if it had been trained: its normalisations do something, and its predictions differ between images."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in detector.state_dict().items():
        if name.endswith(("running_var", "bn.weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(("running_mean", "bn.bias", "convs.0.bias")):
            tensor.normal_(0, 0.1, generator=generator)
    return detector.eval()


def pixels(size: int = 64) -> torch.Tensor:
    return torch.randint(256, (2, 3, size, size), generator=torch.Generator().manual_seed(0)).float()


def normalised(detector: RetinaFace, images: torch.Tensor) -> torch.Tensor:
    return detector.data_preprocessor({"inputs": list(images)})["inputs"]


@pytest.mark.parametrize("student", ["retinaface_mobilenetv2", "retinaface_mobilenet025", "retinaface_wider"])
def test_the_teacher_sees_the_image_as_it_normalises_it(student: str) -> None:
    own, teacher = build(student), build("retinaface_wider")
    images = renormalised(normalised(own, pixels()), own.data_preprocessor, teacher.data_preprocessor)
    torch.testing.assert_close(images, normalised(teacher, pixels()), rtol=0, atol=1e-3)


@torch.no_grad()
def test_a_transplanted_head_predicts_what_the_teacher_does_from_its_maps() -> None:
    teacher, student = with_statistics(build("retinaface_wider")), with_statistics(build("retinaface_mobilenetv2"))
    transplant(teacher, student)
    wanted = Outputs.of(teacher, teacher.backbone(normalised(teacher, pixels())))
    more = student.neck.laterals[0].out_channels - teacher.neck.laterals[0].out_channels
    maps = [torch.cat([x, torch.randn(len(x), more, *x.shape[2:])], dim=1) for x in wanted.laterals]
    found = Outputs(maps, student.bbox_head(student.neck.finish(maps)))
    for ours, theirs in zip(found.of_anchors(), wanted.of_anchors(), strict=True):
        assert theirs.std() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    assert all(float(loss) == pytest.approx(0, abs=1e-4) for loss in flat(imitation_losses(found, wanted)))


def flat(losses: dict) -> list[torch.Tensor]:
    return [loss for value in losses.values() for loss in (value if isinstance(value, list) else [value])]


@torch.no_grad()
def test_every_output_of_the_teacher_counts() -> None:
    teacher = with_statistics(build("retinaface_wider"))
    laterals, (scores, boxes, landmarks) = Outputs.of(teacher, teacher.backbone(normalised(teacher, pixels())))
    for level in scores:
        level[:, ::2] += 3  # it is sure of faces
    wanted = Outputs(laterals, (scores, boxes, landmarks))
    other = {
        "maps": Outputs([-x for x in laterals], wanted.predictions),
        "faces": Outputs(laterals, ([-x for x in scores], boxes, landmarks)),
        "boxes": Outputs(laterals, (scores, [x + 1 for x in boxes], landmarks)),
        "landmarks": Outputs(laterals, (scores, boxes, [x + 1 for x in landmarks])),
    }
    for name, found in other.items():
        losses = {key: max(map(float, flat({key: loss}))) for key, loss in imitation_losses(found, wanted).items()}
        assert losses.pop(f"loss_their_{name}") > 0.1
        assert losses == {key: pytest.approx(0, abs=1e-6) for key in losses}


def test_architectures_pass_gradients_to_what_they_inherit() -> None:
    largest = build("retinaface_proxylessnas").backbone
    space = ArchitectureSpace.of({name: parameter.values for name, parameter in PARAMETERS.items()})
    architecture = Architecture.of(space.sample(np.random.default_rng(0)))
    before = {name: buffer.clone() for name, buffer in largest.named_buffers()}
    maps = inherited_maps(largest, architecture, torch.randn(2, 3, 64, 64))
    sum(x.square().sum() for x in maps).backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in largest.named_buffers())
    inherited = remap_backbone(largest.state_dict(), architecture)
    for name, parameter in largest.named_parameters():
        assert (parameter.grad is not None) == (name in inherited), name
    assert largest.stages[1][0].depthwise_conv.conv.weight.grad.abs().sum() > 0


def test_statistics_can_be_kept() -> None:
    norm = torch.nn.BatchNorm2d(3)
    with keeping_buffers(norm):
        assert norm(torch.randn(4, 3, 8, 8) + 5).mean().abs() < 1e-5
    assert norm.running_mean.tolist() == [0, 0, 0] and norm.num_batches_tracked == 0


@pytest.mark.parametrize(("config", "option"), [("mobilenetv2", "--transplant"), ("proxylessnas", "--architectures")])
def test_pretraining_by_imitation_saves_an_ordinary_detector(options, config: str, option: str, tmp_path: Path) -> None:
    options = dataclasses.replace(options, config=CONFIGS / f"retinaface_{config}.py", weights=None)
    arguments = [*command_line(options), "--teacher", str(TEACHER), option, "--out", str(tmp_path / "out.safetensors")]
    assert 0 <= pretrain.main(arguments) <= 1
    load_detector(options.load_config(), tmp_path / "out.safetensors")


def test_options_that_need_a_teacher(options, tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match="need the config of a detector to imitate, --teacher"):
        pretrain.main([*command_line(options), "--transplant", "--out", str(tmp_path / "out.safetensors")])
