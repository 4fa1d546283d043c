from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import nni_hyperfd
from nni_hyperfd.method import MetaFeatureExtractor, WeightsError, features, weights

COUNTS = torch.tensor([20.0, 31.0])


def job(phase, data=None, **parameters):
    service = {"phase": phase, "weights": None}
    if data is not None:
        service |= {"weights": weights.to_text(data), "sha256": weights.sha256(data)}
    return SimpleNamespace(parameters={"phase": phase, **parameters}, service=service)


def learn_data(extractor=None, importance=None, offline=(), dim=12):
    tensors = {
        "embeddings": torch.randn(4, 64, generator=torch.Generator().manual_seed(0)),
        "performance": torch.tensor([0.1, 0.4, 0.2, 0.3]),
    }
    for prefix, given in (("extractor", extractor), ("importance", importance)):
        tensors |= {f"{prefix}.{name}": tensor for name, tensor in (given or {}).items()}
    for index, (images, counts) in enumerate(offline):
        tensors |= {f"offline.{index}.{name}": t for name, t in features.pack(images, counts).items()}
    return weights.dumps(tensors)


def test_outside_nni_there_are_no_parameters_and_no_error():
    code = "import nni_hyperfd; print(nni_hyperfd.get_next_parameter(), nni_hyperfd.get_next_parameter(None))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "{} {}"), done.stderr


def given(lab, monkeypatch, record, dataset):
    """What the hook returns for a record of the tuner."""
    import nni.runtime.trial_command_channel as nni_channel

    class Channel(nni_channel.TrialCommandChannel):
        def receive_parameter(self):
            return record

    monkeypatch.setattr(nni_channel, "_channel", Channel())
    return nni_hyperfd.get_next_parameter(dataset)


def test_an_ordinary_trial_gets_its_configuration_and_does_not_touch_the_data(lab, monkeypatch):
    record = {"parameter_id": 3, "parameters": {"x": 1, "phase": "my own name"}}
    untouched = object()
    assert given(lab, monkeypatch, record, untouched) == {"x": 1, "phase": "my own name"}


@pytest.mark.parametrize("record", [None, {"parameter_id": None, "parameters": None}])
def test_a_record_without_parameters_is_empty(lab, monkeypatch, record):
    assert given(lab, monkeypatch, record, None) == {}


def test_an_extract_job_without_a_data_set_runs_its_configuration_with_a_warning(lab, monkeypatch, caplog):
    record = {
        "parameter_id": 0,
        "parameters": {"phase": "extract", "x": 1},
        "hyperfd": {"phase": "extract", "weights": None},
    }
    assert given(lab, monkeypatch, record, None) == {"x": 1}
    assert "call nni_hyperfd.get_next_parameter(dataset)" in caplog.text


def test_extract_reports_the_meta_feature_two_counts_the_baseline_and_nothing_else(lab):
    (answer,), (final,) = lab.serve(job("extract", x=1), lab.dataset(3))
    assert set(answer) == {"default", "hyperfd"} and answer["default"] == 0.25
    reply = answer["hyperfd"]
    assert set(reply) == {"meta_feature", "num_images", "num_boxes", "baseline", "seconds"}
    assert (reply["num_images"], reply["num_boxes"], reply["baseline"]) == (20, 31, 0.25)
    with torch.no_grad():
        expected = MetaFeatureExtractor.initial(12, seed=0)(lab.dataset(3).image_features(256, 0), COUNTS)
    assert reply["meta_feature"] == pytest.approx(expected.tolist(), abs=1e-5)
    assert final["default"] == 0.25 and final["phase"] == "extract"
    assert set(final) == {"default", "phase", "seconds"}


def test_extract_uses_the_weights_that_it_is_sent(lab):
    extractor = MetaFeatureExtractor.initial(12, seed=77)
    (answer,), _ = lab.serve(job("extract", weights.dumps(extractor.state_dict())), lab.dataset(3))
    with torch.no_grad():
        expected = extractor(lab.dataset(3).image_features(256, 0), COUNTS)
    assert answer["hyperfd"]["meta_feature"] == pytest.approx(expected.tolist(), abs=1e-5)


def test_weights_damaged_on_the_way_are_refused(lab):
    damaged = job("extract", weights.dumps(MetaFeatureExtractor.initial(12, seed=7).state_dict()))
    damaged.service["sha256"] = 64 * "0"
    with pytest.raises(RuntimeError, match="sha256 differs"):
        lab.serve(damaged)
    wrong = job("extract", weights.dumps({"a": torch.ones(2)}))
    with pytest.raises(WeightsError, match="not the weights of a meta-feature extractor"):
        lab.serve(wrong)


def test_learn_reports_an_update_as_an_intermediate_result_only(lab):
    extractor = MetaFeatureExtractor.initial(12, seed=5)
    importance = {name: torch.ones_like(t) for name, t in extractor.state_dict().items()}
    offline = [(lab.dataset(seed).image_features(20, 0), COUNTS) for seed in (8, 9)]
    data = learn_data(extractor.state_dict(), importance, offline)
    (answer,), final = lab.serve(job("learn", data))
    assert final == []
    reply = answer["hyperfd"]
    assert set(reply) == {"update", "meta_feature", "seconds"}
    update = weights.loads(weights.from_text(reply["update"]))
    assert set(update) == {f"{p}.{name}" for p in ("extractor", "importance") for name in extractor.state_dict()}
    moved = [not torch.equal(update[f"extractor.{name}"], t) for name, t in extractor.state_dict().items()]
    assert any(moved)
    gained = [update[f"importance.{name}"] - t for name, t in importance.items()]
    assert any((change != 0).any() for change in gained) and all(change.abs().max() < 0.5 for change in gained)
    updated = MetaFeatureExtractor.from_weights(weights.under(update, "extractor"))
    with torch.no_grad():
        expected = updated(lab.dataset(1).image_features(256, 0), COUNTS)
    assert reply["meta_feature"] == pytest.approx(expected.tolist(), abs=1e-4)
    # Same job, same answer: nothing depends on the process.
    torch.manual_seed(99)
    again = lab.serve(job("learn", data))[0][0]["hyperfd"]
    assert again["update"] == reply["update"] and again["meta_feature"] == reply["meta_feature"]
    without = lab.serve(job("learn", learn_data(extractor.state_dict(), importance)))[0][0]["hyperfd"]
    assert without["update"] != reply["update"], "the offline data sets are used"


def test_what_travels_has_no_comment_in_it_for_nnis_json_reader(lab):
    text = json.dumps(lab.serve(job("learn", learn_data()))[0])
    assert "//" not in text and "#" not in text


def test_image_features_are_made_once_and_kept_on_this_machine(lab, caplog):
    calls = []

    class Counting(lab.dataset):
        def image_features(self, limit, seed):
            calls.append((limit, seed))
            return super().image_features(limit, seed)

    first = lab.serve(job("extract"), Counting(4))[0][0]["hyperfd"]["meta_feature"]
    assert lab.serve(job("extract"), Counting(4))[0][0]["hyperfd"]["meta_feature"] == first
    lab.serve(job("learn", learn_data()), Counting(4))
    assert calls == [(256, 0)]
    lab.serve(job("extract"), Counting(5))
    assert len(calls) == 2, "another data set"

    (cached, *_) = sorted(lab.folder.glob("cache/nni_hyperfd/*4-12.safetensors"))
    assert [p.suffix for p in cached.parent.iterdir()] == [".safetensors"] * 2
    cached.write_bytes(cached.read_bytes()[:-7])
    assert lab.serve(job("extract"), Counting(4))[0][0]["hyperfd"]["meta_feature"] == first
    assert len(calls) == 3 and "computed anew" in caplog.text


def test_features_that_are_not_finite_do_not_leave_the_trial(lab):
    class Broken(lab.dataset):
        def image_features(self, limit, seed):
            images = super().image_features(limit, seed)
            images[1, 1, 1, 1] = torch.inf
            return images

    with pytest.raises(WeightsError, match="contains NaN or infinity"):
        lab.serve(job("extract"), Broken(6))


def test_an_extractor_of_another_detector_is_refused_with_what_to_do(lab):
    data = weights.dumps(MetaFeatureExtractor.initial(20, seed=0).state_dict())
    with pytest.raises(ValueError, match="detector with 16 channels.*has 8.*name another state file"):
        lab.serve(job("extract", data), lab.dataset(7, feature_dim=12))
