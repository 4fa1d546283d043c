from __future__ import annotations

import cv2
import numpy as np
import onnxruntime
import pytest
import torch

from nni_hyperfd.datasets.subsets import networks
from nni_hyperfd.datasets.subsets.errors import SubsetsError

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def test_the_last_map_before_the_heads_is_the_default(write_onnx):
    path = write_onnx("detector")
    vector = networks.load(networks.parse(f"net={path},size=64"))(PICTURE)
    rgb = cv2.resize(PICTURE, (64, 64), interpolation=cv2.INTER_AREA)[..., ::-1]
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    batch = torch.from_numpy(rgb.transpose(2, 0, 1)[None].astype(np.float32))
    deep = torch.nn.functional.conv2d(batch, torch.from_numpy(weights), stride=2)[0].flatten(1)
    expected = torch.cat([deep.mean(1), deep.std(1, correction=0)])
    np.testing.assert_allclose(vector, expected, rtol=1e-4)
    for layer in ("deep", "backbone"):
        named = networks.load(networks.parse(f"net={path},size=64,layer={layer}"))(PICTURE)
        np.testing.assert_array_equal(named, vector)
    assert networks.load(networks.parse(f"net={path},layer=box"))(PICTURE).shape == (8,)


def test_the_last_hidden_layer_of_a_classifier_is_the_default(write_onnx):
    path = write_onnx("classifier")
    vector = networks.load(networks.parse(f"net={path},pixels=imagenet"))(PICTURE)
    assert vector.shape == (4,)
    # The file's own answer follows from it: the layer is what the last weights take.
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rgb = cv2.resize(PICTURE, (32, 32), interpolation=cv2.INTER_AREA)[..., ::-1] / 255
    batch = ((rgb - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)[None].astype(np.float32)
    random = np.random.default_rng(0)
    weights = [random.normal(size=size).astype(np.float32) for size in ((4, 3, 3, 3), (4, 10))][1]
    logits = vector @ weights
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(session.run(None, {"picture": batch})[0][0], probabilities, rtol=1e-3, atol=1e-6)


def test_networks_that_take_the_channels_last(write_onnx):
    vector = networks.load(networks.parse(f"net={write_onnx('channels_last')},pixels=1"))(PICTURE)
    rgb = cv2.resize(PICTURE, (16, 24), interpolation=cv2.INTER_AREA)[..., ::-1].reshape(-1, 3) / 255
    np.testing.assert_allclose(vector, [*rgb.mean(0), *rgb.std(0)], rtol=1e-5)


def test_networks_that_take_grey_pictures(write_onnx):
    vector = networks.load(networks.parse(f"net={write_onnx('grey')}"))(PICTURE)
    grey = cv2.cvtColor(cv2.resize(PICTURE, (16, 24), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    np.testing.assert_allclose(vector, [grey.mean(), grey.std()], rtol=1e-5)


def test_torchscript(tmp_path):
    path = tmp_path / "net.pt"
    torch.jit.script(torch.nn.Sequential(torch.nn.AvgPool2d(2), torch.nn.BatchNorm2d(3))).save(path)
    vector = networks.load(networks.parse(f"net={path},size=32,pixels=-1"))(PICTURE)
    rgb = cv2.resize(PICTURE, (32, 32), interpolation=cv2.INTER_AREA)[..., ::-1] / 127.5 - 1
    cells = rgb.reshape(16, 2, 16, 2, 3).mean((1, 3)).reshape(-1, 3)
    np.testing.assert_allclose(vector, [*cells.mean(0), *cells.std(0)], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "channels_last", "expected"),
    [((1, 3, 4, 5), False, 6), ((1, 4, 5, 3), True, 6), ((1, 7, 3), False, 6), ((1, 9), False, 9), ((9,), False, 9)],
)
def test_what_is_pooled(shape, channels_last, expected):
    output = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    vector = networks.pooled(output, channels_last)
    assert vector.shape == (expected,)
    if expected == 6:
        channel = output[:, 1] if len(shape) == 4 and not channels_last else output[..., 1]
        np.testing.assert_allclose(vector[[1, 4]], [channel.mean(), channel.std()], rtol=1e-5)


def test_files_that_are_no_networks(tmp_path, write_onnx):
    for name, content in [("empty.onnx", b""), ("text.onnx", b"no network"), ("text.pt", b"no network")]:
        (tmp_path / name).write_bytes(content)
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(write_onnx("classifier").read_bytes()[:300])
    torch.save(torch.nn.Linear(2, 2), tmp_path / "pickled.pt")
    for name in ("empty.onnx", "text.onnx", "cut.onnx", "text.pt", "pickled.pt"):
        with pytest.raises(SubsetsError, match=f"{name}: cannot be opened as|{name}: shows no layer") as error:
            networks.load(networks.parse(f"net={tmp_path / name}"))
        assert "\n" not in str(error.value)


def test_layers_and_sizes_that_do_not_fit(write_onnx, tmp_path):
    path = write_onnx("detector")
    with pytest.raises(SubsetsError, match="has no tensor or node 'deeep' .its last tensors: deep, score, box."):
        networks.load(networks.parse(f"net={path},layer=deeep"))
    with pytest.raises(SubsetsError, match=r"takes picture \[1, 100\] tensor\(float\), not one batch of pictures"):
        networks.load(networks.parse(f"net={write_onnx('flat')}"))
    torch.jit.script(torch.nn.Conv2d(4, 2, 1)).save(tmp_path / "four.pt")
    network = networks.load(networks.parse(f"net={tmp_path / 'four.pt'},size=16"))
    with pytest.raises(SubsetsError, match="four.pt: fails on a picture of 16 x 16 px"):
        network(PICTURE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "is not NAME=FILE"),
        ("a-b={}", "is not NAME=FILE"),
        ("labels={}", "is not NAME=FILE"),
        ("net=", "is not NAME=FILE"),
        ("net={}.gone", "there is no file"),
        ("net={},layers=3", "has the option 'layers'"),
        ("net={},pixels=2", "has pixels=2; use one of 255, 1, -1, imagenet"),
        ("net={},size=0", "has size=0"),
        ("net={},size=ten", "has size=ten"),
        ("net={}.pth", "is neither .onnx nor .pt"),
        ("net={}.pt,layer=x", "TorchScript has no named layers"),
    ],
)
def test_models_that_are_not_named_well(tmp_path, text, message):
    path = tmp_path / "net.onnx"
    for suffix in ("", ".pth", ".pt"):
        (tmp_path / f"net.onnx{suffix}").touch()
    with pytest.raises(SubsetsError, match=message):
        networks.parse(text.format(path))


def test_layers_of_real_detectors(real_data):
    for name, channels in [("centerface", 24), ("yunet_n", 64)]:
        model = networks.parse(f"net={real_data / 'weights' / f'{name}_dynamic.onnx'},size=160")
        assert networks.load(model)(PICTURE).shape == (2 * channels,)
