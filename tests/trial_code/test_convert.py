"""Weights of others: every tensor is used, and the detector is as good as theirs."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from retinaface import modules  # noqa: F401
from retinaface.build import load_detector
from retinaface.convert import from_released, from_torchvision, load_weights
from retinaface.options import CONFIGS, Options
from retinaface.training import validate
from retinaface.weight_files import IMAGENET, save_detector, weights_file

from nni_hyperfd.datasets import coco
from nni_hyperfd.weights import WeightsError


def build(name: str):
    torch.manual_seed(0)
    return MODELS.build(Options(Path(), config=CONFIGS / f"{name}.py").load_config().model)


@pytest.fixture
def released(real_data: Path) -> Path:
    path = real_data / "weights" / "bubbliiiing_retinaface_mobilenet0.25.pth"
    if not path.is_file():
        pytest.skip(f"the released RetinaFace is not there: {path}")
    return path


@pytest.fixture
def imagenet() -> Path:
    try:
        return weights_file(IMAGENET)
    except WeightsError as error:
        pytest.skip(str(error))


def test_released_tensors_are_all_used_once(released: Path) -> None:
    theirs = torch.load(released, map_location="cpu", weights_only=True)
    ours = build("retinaface_mobilenet025").state_dict()
    renamed = from_released(theirs)
    assert renamed.keys() == ours.keys() and len(renamed) == len(theirs)
    assert all(renamed[name].shape == tensor.shape for name, tensor in ours.items())
    # Background comes first there, last here.
    bias = theirs["ClassHead.1.conv1x1.bias"]
    assert renamed["bbox_head.cls_convs.1.bias"].tolist() == bias[[1, 0, 3, 2]].tolist()


def test_released_detector_finds_faces_and_wants_rgb(released: Path, real_data: Path) -> None:
    """AP@50 on 24 real images; 0.80 as RGB with shorter side 320."""
    options = Options(
        real_data / "facemask", str(released), CONFIGS / "retinaface_mobilenet025.py", eval_size=320, workers=0
    )
    config = dataclasses.replace(options, min_face=0.0).load_config()
    split = coco.load(options.data, "test")
    numbers = {image["id"] for image in split.images[:24]}
    annotations = [annotation for annotation in split.annotations if annotation["image_id"] in numbers]
    split = dataclasses.replace(split, images=split.images[:24], annotations=annotations)
    as_rgb = validate(config, split)
    config.model.data_preprocessor.bgr_to_rgb = False
    assert as_rgb > 0.75
    assert validate(config, split) < as_rgb


def test_imagenet_backbone_is_torchvisions_forward(imagenet: Path) -> None:
    """Against the network written out over torchvision's names."""
    detector = build("retinaface_mobilenetv2_imagenet").eval()
    assert load_weights(detector, IMAGENET) is detector.backbone
    tensors = torch.load(imagenet, map_location="cpu", weights_only=True)

    def layer(x: torch.Tensor, conv: str, norm: str, stride: int = 1, active: bool = True) -> torch.Tensor:
        kernel = tensors[f"{conv}.weight"]
        groups = x.shape[1] if kernel.shape[1] == 1 else 1
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2, groups=groups)
        statistics = (tensors[f"{norm}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
        x = F.batch_norm(x, *statistics)
        return x.clamp(0, 6) if active else x

    strides = {2: 2, 4: 2, 7: 2, 14: 2}
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    x, expected = layer(images, "features.0.0", "features.0.1", stride=2), []
    for number in range(1, 18):
        block, y = f"features.{number}.conv", x
        if number > 1:
            y = layer(y, f"{block}.0.0", f"{block}.0.1")
        depthwise, last = (f"{block}.0", 1) if number == 1 else (f"{block}.1", 2)
        y = layer(y, f"{depthwise}.0", f"{depthwise}.1", stride=strides.get(number, 1))
        y = layer(y, f"{block}.{last}", f"{block}.{last + 1}", active=False)
        x = x + y if x.shape == y.shape else y
        if number in (6, 13, 17):
            expected.append(x)
    with torch.no_grad():
        for stage, wanted in zip(detector.backbone(images), expected, strict=True):
            assert torch.allclose(stage, wanted, atol=1e-4)


def test_narrow_backbones_start_from_the_first_channels_of_imagenets(imagenet: Path) -> None:
    whole, half = build("retinaface_mobilenetv2_imagenet").backbone, build("retinaface_mobilenetv2")
    whole.load_state_dict(from_torchvision(torch.load(imagenet, map_location="cpu", weights_only=True)))
    assert load_weights(half, "imagenet") is half.backbone
    for name, tensor in half.backbone.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name][tuple(map(slice, tensor.shape))])
    largest = build("retinaface_proxylessnas")
    assert load_weights(largest, "imagenet") is largest.backbone
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(largest.backbone.eval()(images), half.backbone.eval()(images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_imagenet_weights_do_not_make_a_detector(imagenet: Path) -> None:
    config = Options(Path(), config=CONFIGS / "retinaface_mobilenetv2_imagenet.py").load_config()
    with pytest.raises(WeightsError, match="fills the backbone only"):
        load_detector(config, IMAGENET)


def test_own_file_comes_back_as_it_was(tmp_path: Path) -> None:
    detector = build("retinaface_mobilenetv2")
    save_detector(detector, tmp_path / "detector.safetensors")
    config = Options(Path(), config=CONFIGS / "retinaface_mobilenetv2.py").load_config()
    loaded = load_detector(config, tmp_path / "detector.safetensors")
    assert not loaded.training
    for name, tensor in detector.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])


def damaged(change, tmp_path: Path) -> Path:
    """A file of detector weights with one change."""
    tensors = dict(build("retinaface_mobilenetv2").state_dict())
    change(tensors)
    torch.save(tensors, tmp_path / "changed.pth")
    return tmp_path / "changed.pth"


NAME = "neck.laterals.0.conv.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(NAME), f"'{NAME}' is missing from the RetinaFace weights in"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "'extra' does not belong to"),
        (lambda tensors: tensors.update({NAME: torch.zeros(1)}), rf"'{NAME}' .* has shape \(1,\)"),
        (lambda tensors: tensors.update({NAME: "text"}), "holds something other than named tensors"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message):
        load_weights(build("retinaface_mobilenetv2"), damaged(change, tmp_path))


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    save_detector(build("retinaface_mobilenetv2_imagenet"), tmp_path / "wide.safetensors")
    with pytest.raises(WeightsError, match="has shape"):
        load_weights(build("retinaface_mobilenetv2"), tmp_path / "wide.safetensors")


def test_unknown_tensor_in_a_released_file_is_named() -> None:
    with pytest.raises(WeightsError, match="'body.stage9.0.weight' is not part of the architecture"):
        from_released({"body.stage9.0.weight": torch.zeros(1)})


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no weights file"):
        weights_file(tmp_path / "none.pth")
    for name in ("broken.pth", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"no weights")
        with pytest.raises(WeightsError, match=f"{name} cannot be read as weights"):
            load_weights(build("retinaface_mobilenetv2"), tmp_path / name)


class Code:
    """Unpickling it would run code."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def test_pickled_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("code.pth").write_bytes(pickle.dumps(Code()))
    with pytest.raises(WeightsError, match="cannot be read"):
        load_weights(build("retinaface_mobilenetv2"), "code.pth")
    assert not Path("ran").exists()
