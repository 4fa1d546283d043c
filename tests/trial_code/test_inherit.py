"""A detector of another shape starts as the one whose weights it inherits, as far as they have the same parts."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from mmdet.registry import MODELS
from retinaface.build import load_detector
from retinaface.inherit import inherit, widen
from retinaface.options import CONFIGS
from retinaface.parameters import apply_parameters
from retinaface.weight_files import save_detector

from nni_hyperfd.weights import WeightsError


def started(options, **parameters):
    """The trial's detector as training would begin with it."""
    torch.manual_seed(1)
    detector = MODELS.build(apply_parameters(options.load_config(), parameters).model)
    detector.init_weights()
    return detector


@pytest.fixture(params=["retinaface_mobilenetv2", "retinaface_mobilenet025"])
def trained_job(options, tmp_path, request):
    """Options whose detector has statistics and weights as if it had been trained."""
    options = dataclasses.replace(options, config=CONFIGS / f"{request.param}.py")
    torch.manual_seed(0)
    detector = MODELS.build(options.load_config().model)
    for name, tensor in detector.state_dict().items():
        if name.endswith(("running_var", "bn.weight")):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bn.bias")):
            tensor.normal_(0, 0.1)
    save_detector(detector, tmp_path / "trained.safetensors")
    return dataclasses.replace(options, weights=str(tmp_path / "trained.safetensors"))


@pytest.mark.parametrize("steps", [1, 2])
def test_a_scaled_detector_starts_as_the_one_it_inherits_from(trained_job, steps: int, capsys) -> None:
    small, large = started(trained_job), started(trained_job, compound_scale=steps)
    assert sum(p.numel() for p in large.parameters()) > 1.1**steps * sum(p.numel() for p in small.parameters())
    blocks = [sum(map(len, detector.backbone.stages)) for detector in (small, large)]
    assert blocks[1] >= blocks[0] * 1.2**steps
    images = torch.randn(1, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    for ours, theirs in zip(large.eval()(images), small.eval()(images), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.allclose(a, b, atol=1e-4, rtol=1e-4)
    text = capsys.readouterr().out
    assert "of them widened" in text and "of backbone.stages)" in text and "; 0 of the weights unused" in text


@pytest.mark.parametrize("name", ["retinaface_mobilenetv2", "retinaface_mobilenet025"])
def test_what_a_scaled_detector_has_more_learns(options, name: str) -> None:
    options = dataclasses.replace(options, config=CONFIGS / f"{name}.py", weights=None)
    detector = started(options, compound_scale=1)
    before = {name: p.clone() for name, p in detector.named_parameters() if "_" in name.split(".")[3]}
    assert before
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.1)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for _ in range(2):  # in the first step only what multiplies by 0 changes
        optimizer.zero_grad()
        sum(x.square().mean() for part in detector(images) for x in part).backward()
        optimizer.step()
    after = dict(detector.named_parameters())
    assert all(not torch.equal(after[name], old) for name, old in before.items())


@pytest.mark.parametrize("neck", ["pafpn", "bifpn", "nasfpn"])
def test_another_neck_keeps_everything_else(options, neck: str, capsys) -> None:
    mine, source = (
        started(options, neck=neck).state_dict(),
        load_detector(options.load_config(), options.weights).state_dict(),
    )
    for name, tensor in source.items():
        if not name.startswith(("neck.laterals.", "neck.merges.")):
            assert torch.equal(mine.pop(name), tensor)
    assert mine and all(name.startswith("neck.pyramid.") for name in mine)
    assert f"{len(mine)} new ({len(mine)} of neck.pyramid); 30 of the weights unused" in capsys.readouterr().out


def test_more_background_scores_keep_everything(options) -> None:
    mine, source = started(options, maxout_background=3).state_dict(), started(options).state_dict()
    assert all(torch.equal(mine[name], tensor) for name, tensor in source.items())
    assert mine.keys() - source.keys() == {"bbox_head.background_conv.weight", "bbox_head.background_conv.bias"}
    assert mine["bbox_head.background_conv.weight"].shape[0] == 4  # two more for each of two anchors


def test_an_architecture_of_the_space_has_another_neck(searchable_options) -> None:
    from nni_hyperfd.space import PARAMETERS

    smallest = {name: parameter.values[0] for name, parameter in PARAMETERS.items()}
    mine = started(searchable_options, neck="pafpn", **smallest).state_dict()
    usual = started(searchable_options, **smallest).state_dict()
    backbone = [name for name in usual if name.startswith("backbone.")]
    assert backbone and all(torch.equal(mine[name], usual[name]) for name in backbone)


def test_weights_of_another_detector_are_refused_as_ever(options) -> None:
    other = dataclasses.replace(options, config=CONFIGS / "retinaface_mobilenet025.py")
    for parameters in ({}, {"neck": "pafpn"}, {"compound_scale": 1}):
        with pytest.raises(WeightsError, match=r"backbone\.stages"):
            started(other, **parameters)


def test_widen() -> None:
    given, own = torch.full((1, 2, 1, 1), 3.0), torch.full((2, 3, 1, 1), 5.0)
    assert widen(given, own).flatten(1).tolist() == [[3, 3, 0], [5, 5, 5]]
    assert widen(torch.ones(2), torch.full((3,), 7.0)).tolist() == [1, 1, 7]
    assert own.eq(5).all() and given.eq(3).all()


def test_what_fits_by_name_only_is_new() -> None:
    given = {"a.b.weight": torch.ones(4, 1, 3, 3), "a.b.gone": torch.ones(1), "a.c": torch.ones(2)}
    own = {"a.b.weight": torch.zeros(4, 1, 5, 5), "a.c": torch.zeros(1), "a.d.e.f": torch.zeros(1), "x": torch.zeros(2)}
    tensors, summary = inherit({**given, "x": torch.ones(2)}, own)
    assert {name for name, tensor in tensors.items() if tensor.any()} == {"x"}
    assert summary == (
        "1 of 4 tensors inherited, 0 of them widened; 3 new (1 of a.b, 1 of a.c, 1 of a.d); 3 of the weights unused"
    )
