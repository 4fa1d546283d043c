from __future__ import annotations

import base64
import json
import pickle

import nni
import pytest

from nni_hyperfd.experiment import advisor


def test_a_pickle_in_a_metric_is_not_run(tmp_path):
    """`nni.load` would: {"__nni_obj__": ...} is how NNI writes objects that JSON does not know."""

    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    text = json.dumps({"__nni_obj__": base64.b64encode(pickle.dumps(Attack())).decode()})
    assert list(advisor.load_json(text)) == ["__nni_obj__"]
    assert not (tmp_path / "owned").exists()
    nni.load(text)
    assert (tmp_path / "owned").exists(), "the attack is none, so this test proves nothing"


@pytest.mark.parametrize("value", ["text", "", "[", None, 3, {"default": 1}, "[" * 100_000], ids=lambda v: repr(v)[:20])
def test_what_is_no_json_comes_back_for_the_tuner_to_refuse(value):
    assert advisor.load_json(value) == value


@pytest.mark.parametrize("value", [0.5, 3, {"default": 0.5, "a": [1]}, None, "text"])
def test_json_is_read(value):
    assert advisor.load_json(json.dumps(value)) == value
