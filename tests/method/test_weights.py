from __future__ import annotations

import hashlib
import json
import pickle
import struct

import pytest
import safetensors.torch
import torch

from nni_hyperfd.method import MetaFeatureExtractor, WeightsError, weights


def example():
    return MetaFeatureExtractor.initial(5, seed=0).state_dict()


def test_round_trip_keeps_every_number():
    tensors = {**example(), "scalar": torch.tensor(3.0), "empty": torch.zeros(0, 4)}
    loaded = weights.loads(weights.dumps(tensors))
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].shape == tensor.shape
        assert torch.equal(loaded[name], tensor)
    assert weights.loads(weights.dumps({})) == {}


def test_equal_tensors_give_equal_bytes_whatever_their_order_layout_or_memory():
    table = torch.arange(6.0).reshape(2, 3)
    plain = weights.dumps({"a": table.clone(), "b": table.T.contiguous()})
    assert weights.dumps({"b": table.T, "a": table}) == plain
    parameters = {"a": torch.nn.Parameter(table), "b": table.T}
    assert weights.dumps(parameters) == plain
    assert weights.dumps({"a": table, "b": table}) == weights.dumps({"a": table, "b": table.clone()})
    assert weights.sha256(plain) == hashlib.sha256(plain).hexdigest()


def test_loaded_tensors_do_not_share_memory_with_the_bytes():
    data = weights.dumps({"a": torch.ones(3)})
    weights.loads(data)["a"].zero_()
    assert weights.loads(data)["a"].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused_both_ways(value):
    tensors = {"good": torch.ones(2), "bad": torch.tensor([1.0, value])}
    with pytest.raises(WeightsError, match="'bad' contains NaN or infinity"):
        weights.dumps(tensors)
    with pytest.raises(WeightsError, match="'bad' contains NaN or infinity"):
        weights.loads(safetensors.torch.save(tensors))


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64, torch.float16, torch.bool])
def test_other_types_are_refused_both_ways(dtype):
    tensors = {"good": torch.ones(2), "bad": torch.ones(2, dtype=dtype)}
    with pytest.raises(WeightsError, match="must be float32.*'bad'"):
        weights.dumps(tensors)
    with pytest.raises(WeightsError, match="must be float32.*'bad'"):
        weights.loads(safetensors.torch.save(tensors))


def test_every_truncation_is_refused():
    data = weights.dumps({"a": torch.ones(3), "b": torch.zeros(2)})
    for length in range(len(data)):
        with pytest.raises(WeightsError, match="not intact"):
            weights.loads(data[:length])
    with pytest.raises(WeightsError, match="not intact"):
        weights.loads(data + b"\0")


def test_other_formats_and_lying_headers_are_refused():
    def with_header(header):
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + bytes(12)

    honest = {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}
    assert weights.loads(with_header(honest))["a"].tolist() == [0.0, 0.0, 0.0]
    lies = [
        {"a": {**honest["a"], "shape": [4]}},
        {"a": {**honest["a"], "shape": [2**62, 4]}},
        {"a": {**honest["a"], "data_offsets": [0, 2**60]}},
        {"a": {**honest["a"], "dtype": "F33"}},
        {**honest, "b": honest["a"]},
        [1],
    ]
    for data in [b"", b"not weights", struct.pack("<Q", 2**60), pickle.dumps({"a": 1}), *map(with_header, lies)]:
        with pytest.raises(WeightsError, match="not intact"):
            weights.loads(data)


def test_too_many_bytes_are_refused():
    data = weights.dumps({"a": torch.ones(100)})
    assert weights.loads(data, max_bytes=len(data))["a"].sum() == 100
    with pytest.raises(WeightsError, match=f"{len(data)} bytes are refused, the limit is 400"):
        weights.loads(data, max_bytes=400)
    with pytest.raises(WeightsError, match="are refused"):
        weights.loads(bytes(weights.MAX_BYTES + 1))


def test_check_like_names_the_first_difference():
    template = example()
    weights.check_like(example(), template, "the updated extractor")
    missing = {name: tensor for name, tensor in template.items() if name != "image.bias"}
    with pytest.raises(WeightsError, match="'image.bias' is missing from the updated extractor"):
        weights.check_like(missing, template, "the updated extractor")
    with pytest.raises(WeightsError, match="'extra' does not belong to the updated extractor"):
        weights.check_like({**template, "extra": torch.ones(1)}, template, "the updated extractor")
    wrong = {**template, "image.bias": torch.ones(1, 64)}
    with pytest.raises(WeightsError, match=r"'image.bias' of the updated extractor has shape \(1, 64\), .* \(64,\)"):
        weights.check_like(wrong, template, "the updated extractor")


def test_text_is_the_bytes_again_and_safe_for_nnis_json_reader():
    # All pairs of six-bit groups; "/" and "#" begin a comment there, even inside a string.
    data = bytes(range(256)) * 3 + b"\xff" * 999 + bytes([0xFB, 0xEF, 0xBE]) * 50
    text = weights.to_text(data)
    assert weights.from_text(text) == data
    assert not set('/#+\\" \n') & set(text) and text.isascii()
    assert set("-_") <= set(text)
    assert weights.from_text(weights.to_text(b"")) == b""


@pytest.mark.parametrize(
    "text", [None, 7, 1.5, [], {}, ["AAAA"], "AAA", "AA=A", "AA A", "AAAA\n", "%%%%", "ä" * 4, "A" * 5]
)
def test_what_is_no_text_of_weights_is_refused(text):
    with pytest.raises(WeightsError, match="not base64 text"):
        weights.from_text(text)


def test_under_takes_what_carries_the_prefix_and_takes_the_prefix_off():
    one, two, three = torch.ones(1), torch.ones(2), torch.ones(3)
    tensors = {"a.x": one, "a.b.x": two, "ab.x": three, "x": one}
    assert {name: t.numel() for name, t in weights.under(tensors, "a").items()} == {"x": 1, "b.x": 2}
    assert weights.under(tensors, "c") == {}
