from __future__ import annotations

import json
import math
import os
import stat
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import nni_hyperfd
from nni_hyperfd import wire
from nni_hyperfd.experiment import trial as trial_hook
from nni_hyperfd.experiment.tuner import TrialRequest
from nni_hyperfd.method import MetaFeatureExtractor, WeightsError, weights
from nni_hyperfd.privacy import projection as projections
from nni_hyperfd.privacy.mechanism import noise_multiplier
from nni_hyperfd.privacy.settings import PrivacyError
from nni_hyperfd.wire import Description, ExtractJob, ExtractorUpdate, LearnJob, WireError


def extract(extractor=None, may_start_anew=False, **configuration):
    """A request for an extract trial; without an extractor by the initial one."""
    given = {} if extractor is None else extractor.state_dict()
    return TrialRequest(configuration, ExtractJob(given, may_start_anew))


def learn(extractor=None, importance=None, **others):
    """A request for a learn trial with four results."""
    embeddings = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    performance = torch.tensor([0.1, 0.4, 0.2, 0.3])
    given = {} if extractor is None else extractor.state_dict()
    return TrialRequest({}, LearnJob(given, importance or {}, embeddings, performance, **others))


def changed(request, **fields):
    """The request with other fields in its packed job."""
    record = request.record(0)
    return SimpleNamespace(record=lambda _: record | {"hyperfd": record["hyperfd"] | fields})


def described(lab, request, dataset=None):
    (answer,), _ = lab.serve(request, dataset)
    return Description.unpack(wire.answer_in(answer))


def learned(lab, request, dataset=None):
    (answer,), final = lab.serve(request, dataset)
    assert final == [] and set(answer) == {"hyperfd"}, "NNI would take a number for an AP"
    return ExtractorUpdate.unpack(wire.answer_in(answer))


def meta_feature(extractor, dataset):
    with torch.no_grad():
        return extractor(dataset.image_features(300, 0)).tolist()


# -- ordinary trials ---------------------------------------------------------------------------------------------------


def test_outside_nni_there_are_no_parameters_and_no_error():
    code = "import nni_hyperfd; print(nni_hyperfd.get_next_parameter(), nni_hyperfd.get_next_parameter(None))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "{} {}"), done.stderr


def given(lab, monkeypatch, record, dataset, reported=None):
    """What the hook returns for a record of the tuner; what the trial reports from then on is added to a list."""
    import nni.runtime.trial_command_channel as nni_channel

    class Channel(nni_channel.TrialCommandChannel):
        def receive_parameter(self):
            return record

        def send_metric(self, type, parameter_id, trial_job_id, sequence, value):
            reported.append((type, parameter_id, value))

    monkeypatch.setattr(nni_channel, "_channel", Channel())
    return nni_hyperfd.get_next_parameter(dataset)


def test_an_ordinary_trial_gets_its_configuration_and_does_not_touch_the_data(lab, monkeypatch):
    record = {"parameter_id": 3, "parameters": {"x": 1, "phase": "my own name"}}
    untouched = object()
    assert given(lab, monkeypatch, record, untouched) == {"x": 1, "phase": "my own name"}
    assert given(lab, monkeypatch, TrialRequest({"x": 1}).record(3), untouched) == {"x": 1}


@pytest.mark.parametrize(
    ("settings", "dataset", "sent"),
    [
        ("epsilon=3", object(), {"default": 0.12, "epochs": 7, "phase": "fine-tune", "others": [0.0067, 81.0]}),
        ("ap=exact", object(), None),
        ("off", object(), None),
        ("epsilon=3", None, None),
    ],
)
def test_aps_leave_an_ordinary_trial_rounded_unless_its_owner_says_otherwise(lab, monkeypatch, settings, dataset, sent):
    import nni

    monkeypatch.setenv("HYPERFD_PRIVACY", settings)
    reported, metric = [], {"default": 0.123456, "epochs": 7, "phase": "fine-tune", "others": [0.0067123, 81.23]}
    with monkeypatch.context() as patch:
        given(lab, patch, {"parameter_id": 3, "parameters": {}}, dataset, reported)
        nni.report_intermediate_result(0.98765)
        nni.report_final_result(metric)
    number = 0.99 if sent else 0.98765
    assert reported == [("PERIODICAL", 3, number), ("FINAL", 3, sent or metric)]


def test_wrong_settings_end_an_ordinary_trial_too(lab, monkeypatch):
    monkeypatch.setenv("HYPERFD_PRIVACY", "epsilon=0")
    with pytest.raises(PrivacyError, match="epsilon must be above 0"):
        given(lab, monkeypatch, {"parameter_id": 3, "parameters": {}}, object())


@pytest.mark.parametrize("record", [None, {"parameter_id": None, "parameters": None}])
def test_a_record_without_parameters_is_empty(lab, monkeypatch, record):
    assert given(lab, monkeypatch, record, None) == {}


def test_an_extract_job_without_a_data_set_runs_its_configuration_with_a_warning(lab, monkeypatch, caplog):
    assert given(lab, monkeypatch, extract(x=1).record(0), None) == {"x": 1}
    assert "call nni_hyperfd.get_next_parameter(dataset)" in caplog.text


def test_a_job_of_another_version_or_damaged_on_the_way_ends_the_trial(lab, monkeypatch):
    damaged = extract(MetaFeatureExtractor.initial(2, seed=7))
    for request, reason in (
        (changed(damaged, sha256=64 * "0"), "sha256 differs"),
        (changed(damaged, version=7), "has version 7 of the protocol, this side speaks 2; install the same"),
        (changed(learn(), seed=-1), "seed: -1 is no whole number"),
    ):
        with pytest.raises(WireError, match=reason):
            given(lab, monkeypatch, request.record(0), lab.dataset(1, 2))
    with pytest.raises(WeightsError, match="not the weights of a meta-feature extractor"):
        lab.serve(TrialRequest({}, ExtractJob({"a": torch.ones(2)})))


# -- extract -----------------------------------------------------------------------------------------------------------


FIELDS = {"meta_feature", "num_images", "num_boxes", "baseline", "initial", "seconds", "extractor", "withheld"}
FIELDS |= {"among", "share", "version", "phase"}


def test_with_the_settings_off_extract_reports_the_mean_two_counts_the_baseline_and_nothing_else(lab):
    (answer,), (final,) = lab.serve(extract(x=1), lab.dataset(3, 2))
    assert set(answer) == {"default", "hyperfd"} and answer["default"] == 0.25
    assert set(answer["hyperfd"]) == FIELDS
    reply = Description.unpack(wire.answer_in(answer))
    assert (reply.num_images, reply.num_boxes, reply.baseline, reply.initial) == (20, 31, 0.25, False)
    assert (reply.extractor, reply.withheld, reply.among, reply.share) == (None, None, 1, True)
    expected = meta_feature(MetaFeatureExtractor.initial(2, seed=0), lab.dataset(3, 2))
    assert reply.meta_feature == pytest.approx(expected, abs=1e-5)
    assert final == {"default": 0.25, "phase": "extract", "seconds": reply.seconds} and reply.seconds >= 0


def test_extract_uses_the_weights_that_it_is_sent(lab):
    extractor = MetaFeatureExtractor.initial(2, seed=77)
    reply = described(lab, extract(extractor), lab.dataset(3, 2))
    assert reply.meta_feature == pytest.approx(meta_feature(extractor, lab.dataset(3, 2)), abs=1e-5)


def test_an_extractor_of_another_detector_is_refused_with_what_to_do(lab):
    wide = MetaFeatureExtractor.initial(20, seed=0)
    for request in (extract(wide), learn(wide)):
        with pytest.raises(ValueError, match="detector with 16 channels.*has 8.*name another state file"):
            lab.serve(request, lab.dataset(7, feature_dim=12))


def test_where_it_may_another_detector_describes_by_the_initial_extractor_and_says_so(lab):
    reply = described(lab, extract(MetaFeatureExtractor.initial(20, seed=7), True), lab.dataset(3, 2))
    expected = meta_feature(MetaFeatureExtractor.initial(2, seed=0), lab.dataset(3, 2))
    assert reply.initial and reply.meta_feature == pytest.approx(expected, abs=1e-5)
    fitting = MetaFeatureExtractor.initial(2, seed=7)
    reply = described(lab, extract(fitting, True), lab.dataset(3, 2))
    assert not reply.initial
    assert reply.meta_feature == pytest.approx(meta_feature(fitting, lab.dataset(3, 2)), abs=1e-5)


def test_features_that_are_not_finite_do_not_leave_the_trial(lab):
    class Broken(lab.dataset):
        def image_features(self, limit, seed):
            images = super().image_features(limit, seed)
            images[1, 1, 1, 1] = torch.inf
            return images

    with pytest.raises(WeightsError, match="contains NaN or infinity"):
        lab.serve(extract(), Broken(6, 2))


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [("evaluate", 1.5, "baseline: 1.5 is no AP"), ("num_boxes", -1, "num_boxes: -1 is no count")],
)
def test_a_description_that_the_platform_would_refuse_does_not_leave_the_trial(lab, name, value, reason):
    broken = type("Broken", (lab.dataset,), {name: (lambda self: value) if name == "evaluate" else value})
    with pytest.raises(WireError, match=reason):
        lab.serve(extract(), broken(6, 2))


def test_image_features_are_made_once_and_kept_on_this_machine(lab, caplog):
    calls = []

    class Counting(lab.dataset):
        def image_features(self, limit, seed):
            calls.append((limit, seed))
            return super().image_features(limit, seed)

    first = described(lab, extract(), Counting(4, 2)).meta_feature
    assert described(lab, extract(), Counting(4, 2)).meta_feature == first
    lab.serve(learn(), Counting(4, 2))
    assert calls == [(300, 0)]
    lab.serve(extract(), Counting(5, 2))
    assert len(calls) == 2, "another data set"

    (cached, *_) = sorted(lab.folder.glob("cache/nni_hyperfd/*4-2-300.safetensors"))
    assert [p.suffix for p in cached.parent.iterdir()] == [".safetensors"] * 2
    cached.write_bytes(cached.read_bytes()[:-7])
    assert described(lab, extract(), Counting(4, 2)).meta_feature == first
    assert len(calls) == 3 and "computed anew" in caplog.text
    assert stat.S_IMODE(cached.stat().st_mode) == 0o600
    month_ago = time.time() - 31 * 86400
    os.utime(cached, (month_ago, month_ago))
    described(lab, extract(), Counting(5, 2))
    assert not cached.exists(), "what is not used for a month is removed"


# -- extract under the owner's settings --------------------------------------------------------------------------------

TRAINED = MetaFeatureExtractor.initial(2, seed=7)
DIGEST = weights.sha256(weights.dumps(TRAINED.state_dict()))


@pytest.fixture
def owned(lab, monkeypatch):
    """Makes a data set of the owner's, whose settings are the given ones and a projection for `TRAINED`."""
    projection = lab.folder / "p.json"
    with torch.no_grad():
        vectors = TRAINED.image_vectors(lab.dataset(50, 2).image_features(20, 0)).numpy()
    projections.save(projections.fit([vectors], DIGEST, 2), projection)

    def make(settings="", images=120, kind=lab.dataset):
        monkeypatch.setenv("HYPERFD_PRIVACY", f"projection={projection},{settings}")
        folder = lab.folder / "data"
        return type("Owned", (kind,), {"num_images": images, "folder": folder})(3, 2)

    return make


def test_by_default_extract_reports_noised_numbers_and_no_exact_count(lab, owned):
    dataset = owned()
    dataset.evaluate = lambda: 0.123456
    (answer,), (final,) = lab.serve(extract(TRAINED), dataset)
    assert set(answer["hyperfd"]) == FIELDS
    reply = Description.unpack(wire.answer_in(answer))
    assert (reply.num_images, reply.num_boxes, reply.baseline) == (100, None, 0.12)
    assert (reply.extractor, reply.withheld, reply.among, reply.share) == (DIGEST, None, 0, False)
    assert reply.seconds == int(reply.seconds) and final["default"] == 0.12
    exact = projections.load(lab.folder / "p.json").described(vectors_of(dataset))
    assert 0.01 < math.dist(reply.meta_feature, exact) < 3


def vectors_of(dataset):
    with torch.no_grad():
        return TRAINED.image_vectors(dataset.image_features(300, 0)).numpy()


def test_an_unchanged_data_set_is_described_by_the_same_numbers_without_its_images(lab, owned):
    first = described(lab, extract(TRAINED), owned())
    again = owned()
    again.image_features = None
    for path in lab.folder.glob("cache/nni_hyperfd/*"):
        path.unlink()
    assert described(lab, extract(TRAINED), again).meta_feature == first.meta_feature
    newer = MetaFeatureExtractor.initial(2, seed=8)
    request = TrialRequest({}, ExtractJob(newer.state_dict(), False, [DIGEST]))
    reply = described(lab, request, again)
    assert (reply.meta_feature, reply.extractor) == (first.meta_feature, DIGEST), "the platform carries it over"
    with pytest.raises(TypeError):
        described(lab, extract(newer), again)


@pytest.mark.parametrize(
    ("extractor", "settings", "images", "reason", "sentence"),
    [
        (TRAINED, "", 99, "few", "it has fewer images than 100"),
        (TRAINED, "minimum=200", 150, "few", "fewer images than 200"),
        (TRAINED, "delta=0.01", 100, "few", "or more than 1 / delta"),
        (None, "", 120, "unknown", "there is no projection for the platform's extractor"),
        (MetaFeatureExtractor.initial(2, seed=9), "", 120, "unknown", "there is no projection"),
        (MetaFeatureExtractor.initial(3, seed=9), "", 120, "unknown", "there is no projection"),
    ],
)
def test_what_the_owner_does_not_want_described_stays_at_home(
    lab, owned, caplog, extractor, settings, images, reason, sentence
):
    reply = described(lab, extract(extractor, True), owned(settings, images))
    assert (reply.meta_feature, reply.num_images, reply.num_boxes) == (None, None, None)
    assert (reply.withheld, reply.initial, reply.extractor, reply.baseline) == (reason, False, None, 0.25)
    assert "The data set is not described: " in caplog.text and sentence in caplog.text


def test_a_spent_budget_ends_descriptions_of_a_set_that_grows(lab, owned):
    replies = []
    for size in range(120, 127):
        dataset = owned(images=size)
        dataset.fingerprint = lambda size=size: f"grown-{size}"
        replies.append(described(lab, extract(TRAINED), dataset).withheld)
    assert replies == [None] * 5 + ["spent"] * 2


def test_groups_are_described_as_units(lab, owned):
    class Grouped(lab.dataset):
        def groups(self, limit, seed):
            assert limit == self.num_images, "all images of a group"
            return [f"person {place // 4}" for place in range(limit)]

    reply = described(lab, extract(TRAINED), owned("unit=group,minimum=20", 400, Grouped))
    assert reply.num_images == 100
    with pytest.raises(PrivacyError, match="unit=group needs the group of every image"):
        described(lab, extract(TRAINED), owned("unit=group,minimum=20,epsilon=2"))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ("epsilon=0", "epsilon must be above 0"),
        ("epsilon=9", "total must be at least epsilon"),
        ("secret=1", "there is no setting 'secret'"),
    ],
)
def test_with_wrong_settings_nothing_leaves(lab, owned, settings, reason):
    with pytest.raises(PrivacyError, match=reason):
        lab.serve(extract(TRAINED), owned(settings))


def test_a_damaged_ledger_ends_the_trial_and_nothing_leaves(lab, owned):
    lab.serve(extract(TRAINED), owned())
    (lab.folder / "data" / ".hyperfd" / "ledger.json").write_text("{}")
    with pytest.raises(PrivacyError, match="the ledger is damaged"):
        lab.serve(extract(TRAINED), owned())


def test_a_crafted_job_is_refused_before_it_is_run(lab, owned):
    dataset = owned()
    dataset.evaluate = None
    wide = MetaFeatureExtractor.initial(2, seed=0, hidden=700)
    with pytest.raises(WireError, match="its vectors have 700 numbers, 64 were expected"):
        lab.serve(extract(wide), dataset)
    more = TRAINED.state_dict() | {"backdoor": torch.ones(3)}
    with pytest.raises(WeightsError, match="'backdoor' does not belong"):
        lab.serve(TrialRequest({}, ExtractJob(more)), dataset)


def test_a_crafted_extractor_shows_one_image_no_better_than_the_noise_lets_it(lab, owned):
    """It maps one image to a huge vector and all others to one point; the noise is scaled to any such network."""
    crafted = MetaFeatureExtractor.initial(2, seed=7)
    with torch.no_grad():
        crafted.output_norm.weight.fill_(9.9e3)
    request = TrialRequest({}, ExtractJob(crafted.state_dict(), False, [DIGEST]))
    reply = described(lab, request, owned())
    projection = projections.load(lab.folder / "p.json")
    released = projection.directions @ (np.array(reply.meta_feature) - projection.center)
    scale = noise_multiplier(3, 1e-5) * 2 * projection.radius / 100
    assert np.linalg.norm(released) < projection.radius + 6 * scale * math.sqrt(len(released))


def test_with_the_settings_off_and_a_projection_the_same_directions_are_told_without_noise(lab, owned, monkeypatch):
    dataset = owned()
    monkeypatch.setenv("HYPERFD_PRIVACY", f"off,projection={lab.folder / 'p.json'}")
    reply = described(lab, extract(TRAINED), dataset)
    exact = projections.load(lab.folder / "p.json").described(vectors_of(dataset))
    assert reply.meta_feature == pytest.approx(exact.tolist(), abs=1e-5) and reply.num_images == 120


# -- learn -------------------------------------------------------------------------------------------------------------


def test_a_learn_job_that_the_owner_does_not_allow_ends_the_trial(lab, owned):
    dataset = owned()
    dataset.image_features = None
    with pytest.raises(PrivacyError, match="an update of the extractor, which HYPERFD_PRIVACY does not allow"):
        lab.serve(learn(TRAINED), dataset)


def test_learn_reports_an_update_as_an_intermediate_result_only(lab):
    extractor = MetaFeatureExtractor.initial(2, seed=5)
    importance = {name: torch.ones_like(t) for name, t in extractor.state_dict().items()}
    (answer,), _ = lab.serve(learn(extractor, importance), lab.dataset(1, 2))
    assert set(answer["hyperfd"]) == {"version", "phase", "tensors", "sha256", "meta_feature", "seconds"}
    update = learned(lab, learn(extractor, importance), lab.dataset(1, 2))
    assert set(update.extractor) == set(update.importance) == set(importance)
    assert any(not torch.equal(update.extractor[name], t) for name, t in extractor.state_dict().items())
    gained = [update.importance[name] - t for name, t in importance.items()]
    assert any((change != 0).any() for change in gained) and all(change.abs().max() < 0.5 for change in gained)
    expected = meta_feature(MetaFeatureExtractor.from_weights(update.extractor), lab.dataset(1, 2))
    assert update.meta_feature == pytest.approx(expected, abs=1e-4)


def test_what_is_learned_depends_on_the_job_and_on_nothing_else(lab):
    def tensors(**others):
        return lab.serve(learn(MetaFeatureExtractor.initial(2, seed=5), **others), lab.dataset(1, 2))[0][0]["hyperfd"]

    offline = [lab.dataset(seed, 2).image_features(20, 0) for seed in (8, 9)]
    first = tensors(seed=3)["tensors"]
    torch.manual_seed(99)  # nothing depends on the process
    assert tensors(seed=3)["tensors"] == first
    assert tensors(seed=4)["tensors"] != first, "the seed is used"
    assert tensors(seed=3, offline=offline)["tensors"] != first, "the offline data sets are used"
    replay = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    assert tensors(seed=3, replay=replay)["tensors"] != first, "other clients' meta-features are used"


def test_a_trial_on_another_machine_finds_the_manager_in_the_settings_of_the_keeper_there(tmp_path, monkeypatch):
    """As NNI 3.0 lays them out; after a resume there are two."""
    asked = []
    record = {"parameter_id": 3, "parameters": {"x": 1}}

    class Session:
        def get(self, url, timeout):
            asked.append(url)
            answer = {"hyperParameters": [json.dumps(record)]}
            return SimpleNamespace(raise_for_status=lambda: None, json=lambda: answer)

    environment = tmp_path / "environments" / "remote-worker1"
    for number, name in enumerate(("trial_keeper", "trial_keeper_1")):
        settings = environment / name / "trial_keeper_config.json"
        settings.parent.mkdir(parents=True)
        settings.write_text(json.dumps({"managerCommandChannel": f"ws://10.0.0.1:808{number}/a/platform/remote/1"}))
        os.utime(settings, (number, number))
    monkeypatch.setattr("nni_hyperfd.experiment.manager.requests", Session())
    monkeypatch.setattr(trial_hook.nni, "get_next_parameter", lambda: {})
    monkeypatch.setattr(trial_hook.nni, "get_trial_id", lambda: "AbCdE")
    monkeypatch.setattr(trial_hook.nni.trial, "_params", None)
    monkeypatch.setenv("NNI_TRIAL_COMMAND_CHANNEL", "http://localhost:41234/env/remote-worker1/AbCdE")
    monkeypatch.setenv("NNI_OUTPUT_DIR", str(environment / "trials" / "AbCdE"))
    monkeypatch.setenv("NNI_PLATFORM", "remote")
    monkeypatch.setenv("HYPERFD_TOKEN", "secret")
    assert nni_hyperfd.get_next_parameter() == {"x": 1}
    assert asked == ["http://10.0.0.1:8081/a/api/v1/nni/trial-jobs/AbCdE"]
    assert "HYPERFD_TOKEN" not in os.environ, "what the trial starts does not get it"


def test_a_pick_of_the_last_ranking_is_marked_for_the_web_ui_only(lab, monkeypatch):
    record = TrialRequest({"x": 1}, note=wire.WITHOUT_PLATFORM).record(3)
    assert record["parameters"] == {"phase": "fine-tune, platform away", "x": 1}
    assert given(lab, monkeypatch, record, None) == {"x": 1}
