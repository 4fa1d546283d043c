from __future__ import annotations

import ast
import base64
import dataclasses
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import nni
import pytest
import safetensors.torch
import torch

import nni_hyperfd
from nni_hyperfd import wire
from nni_hyperfd.method import MetaFeatureExtractor, weights
from nni_hyperfd.task import Phase
from nni_hyperfd.wire import Description, ExtractJob, ExtractorUpdate, LearnJob, WireError

WIDTH = 2


def like(tensors, value):
    return {name: torch.full_like(tensor, value) for name, tensor in tensors.items()}


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def extractor():
    return MetaFeatureExtractor.initial(WIDTH, seed=5).state_dict()


@pytest.fixture(scope="module")
def messages(extractor):
    """One of each kind, everything in it given."""
    images = drawn(1, 4, 3, 3, WIDTH)
    images[::2, :, 0] = torch.nan  # images without a positive anchor
    return {
        ExtractJob: ExtractJob(extractor, True, ["a" * 64, "0123456789abcdef" * 4]),
        LearnJob: LearnJob(
            extractor,
            like(extractor, 0.5),
            drawn(2, 3, 64),
            torch.tensor([0.1, 0.4, 0.2]),
            2**32 - 1,
            [images, images[:1]],
            drawn(3, 5, 64),
        ),
        Description: Description([0.25 * n for n in range(64)], 20, 31, 0.25, True, 1.5, "b" * 64, None, 5, True),
        ExtractorUpdate: ExtractorUpdate(extractor, like(extractor, 0.25), [-0.5] * 64, 2.5),
    }


KINDS = [ExtractJob, LearnJob, Description, ExtractorUpdate]
WITH_TENSORS = [ExtractJob, LearnJob, ExtractorUpdate]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def sent(message):
    """A message as the other end gets it."""
    return json.loads(json.dumps(message.pack()))


def plain(value):
    """What a message holds, to be compared: a tensor by its shape and bytes."""
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {name: plain(tensor) for name, tensor in sorted(value.items())}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def content(message):
    return {field.name: plain(getattr(message, field.name)) for field in dataclasses.fields(message)}


def repacked(packed, change):
    """A packed message whose tensors have been changed, with the sha256 that belongs to them."""
    tensors = weights.loads(weights.from_text(packed["tensors"]))
    data = safetensors.torch.save(change(tensors) or tensors)
    return packed | {"tensors": weights.to_text(data), "sha256": weights.sha256(data)}


# -- there and back ----------------------------------------------------------------------------------------------------


@kinds
def test_a_message_arrives_as_it_was_sent(messages, kind):
    message = messages[kind]
    got = kind.unpack(sent(message))
    assert type(got) is kind and content(got) == content(message)
    assert sent(got) == sent(message), "and is packed alike again"


def test_what_may_be_left_out_arrives_as_left_out(extractor):
    assert content(ExtractJob.unpack(sent(ExtractJob({})))) == content(ExtractJob({}, False, []))
    bare = LearnJob({}, {}, torch.zeros(0, 64), torch.zeros(0))
    assert content(LearnJob.unpack(sent(bare))) == content(bare)
    assert bare.seed == 0 and bare.offline == () and bare.replay is None
    assert Description.unpack(sent(Description([0] * 64, 0, 0, 1))) == Description([0.0] * 64, 0, 0, 1.0, False, 0.0)
    withheld = Description(None, None, None, 0.5, withheld="few")
    assert Description.unpack(sent(withheld)) == withheld and (withheld.among, withheld.share) == (0, False)
    update = ExtractorUpdate(extractor, {}, [0.0] * 64)
    assert content(ExtractorUpdate.unpack(sent(update))) == content(update)


def test_the_offline_data_sets_keep_their_order_beyond_ten(extractor):
    sets = [torch.full((1, 3, 3, WIDTH), float(n)) for n in range(12)]
    job = LearnJob({}, {}, torch.zeros(0, 64), torch.zeros(0), offline=sets)
    assert [int(images[0, 0, 0, 0]) for images in LearnJob.unpack(sent(job)).offline] == list(range(12))


@kinds
def test_every_message_names_its_version_and_phase_and_the_same_one_is_the_same_bytes(messages, kind):
    packed = messages[kind].pack()
    assert packed["version"] == wire.VERSION and packed["phase"] == str(kind.phase)
    assert json.dumps(packed) == json.dumps(messages[kind].pack())


@kinds
def test_nnis_json_reader_finds_no_comment_in_a_message(messages, kind):
    """It takes "//" and "#" for comments, even inside of a string."""
    text = json.dumps(messages[kind].pack())
    assert "//" not in text and "#" not in text and nni.load(text) == messages[kind].pack()


def test_messages_cannot_be_changed(messages):
    for message in messages.values():
        with pytest.raises(dataclasses.FrozenInstanceError):
            message.phase = Phase.IMPORT


def test_importing_the_protocol_does_not_import_torch():
    code = "import sys, nni_hyperfd.wire; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# -- what is refused ---------------------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("message", [None, [], "text", 3, True], ids=repr)
def test_what_is_no_object_is_refused(kind, message):
    with pytest.raises(WireError, match=f"the message of the {kind.phase} trial is no JSON object"):
        kind.unpack(message)


@kinds
@pytest.mark.parametrize("version", [1, 3, "2", None, [2]], ids=repr)
def test_another_version_is_refused_naming_both(messages, kind, version):
    told = rf"has version {version!r} of the protocol, this side speaks {wire.VERSION}".replace("[2]", r"\[2\]")
    with pytest.raises(WireError, match=f"the message of the {kind.phase} trial {told}; install the same nni_hyperfd"):
        kind.unpack(sent(messages[kind]) | {"version": version})


@kinds
def test_a_message_without_a_version_is_refused(messages, kind):
    packed = sent(messages[kind])
    del packed["version"]
    with pytest.raises(WireError, match="has version None of the protocol, this side speaks 2"):
        kind.unpack(packed)


@kinds
def test_a_message_of_another_phase_is_refused(messages, kind):
    for other in KINDS:
        if other.phase != kind.phase:
            with pytest.raises(
                WireError, match=f"the message is of phase '{other.phase}', '{kind.phase}' was expected"
            ):
                kind.unpack(sent(messages[other]))
    with pytest.raises(WireError, match=r"the message is of phase \['extract'\]"):
        kind.unpack(sent(messages[kind]) | {"phase": ["extract"]})


@kinds
def test_every_field_must_be_there_and_no_other(messages, kind):
    packed = sent(messages[kind])
    for name in packed.keys() - {"version", "phase"}:
        with pytest.raises(WireError, match=f"the message of the {kind.phase} trial lacks {name}$"):
            kind.unpack({key: value for key, value in packed.items() if key != name})
    with pytest.raises(WireError, match="must not hold '1 more', 'more'$"):
        kind.unpack(packed | {"more": None, "1 more": 2})
    with pytest.raises(WireError, match="lacks .*, .*"):
        kind.unpack({"version": wire.VERSION, "phase": str(kind.phase)})


DAMAGED = {
    "a number": (7, "not base64 text"),
    "nothing": (None, "not base64 text"),
    "a list": ([], "not base64 text"),
    "not base64": ("%%%", "not base64 text"),
    "not ascii": ("ä" * 8, "not base64 text"),
    "wrong padding": ("abc", "not base64 text"),
    "not safetensors": (weights.to_text(b"x" * 999), "not intact safetensors"),
    "a pickle": (weights.to_text(pickle.dumps({"extractor.a": 1.0})), "not intact safetensors"),
    "empty": ("", "not intact safetensors"),
    "too large": (weights.to_text(bytes(weights.MAX_BYTES + 1)), "bytes are refused, the limit is"),
}


@pytest.mark.parametrize("kind", WITH_TENSORS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("damage", DAMAGED)
def test_what_is_no_tensors_is_refused(messages, kind, damage):
    text, reason = DAMAGED[damage]
    digest = weights.sha256(base64.urlsafe_b64decode(text)) if reason[:10] != "not base64" else ""
    with pytest.raises(WireError, match=f"^tensors: .*{reason}"):
        kind.unpack(sent(messages[kind]) | {"tensors": text, "sha256": digest})


@pytest.mark.parametrize("kind", WITH_TENSORS, ids=lambda kind: kind.__name__)
def test_tensors_that_arrive_otherwise_than_they_were_sent_are_refused(messages, kind):
    packed = sent(messages[kind])
    flipped = "B" if packed["tensors"][-8] != "B" else "C"
    for change in (
        {"sha256": 64 * "0"},
        {"sha256": None},
        {"tensors": packed["tensors"][:-8] + flipped + packed["tensors"][-7:]},
        {"tensors": packed["tensors"][: len(packed["tensors"]) // 8 * 4]},
    ):
        with pytest.raises(WireError, match=r"^tensors: they are damaged \(sha256 differs\); run the trial again"):
            kind.unpack(packed | change)


def put(name, tensor):
    return lambda tensors: tensors | {name: tensor}


STRANGE = {
    "NaN": (put("extractor.image.bias", torch.full((64,), math.nan)), "contains NaN or infinity"),
    "infinity": (put("extractor.image.bias", torch.full((64,), -math.inf)), "contains NaN or infinity"),
    "float64": (put("extractor.image.bias", torch.zeros(64, dtype=torch.float64)), "must be float32"),
    "whole numbers": (put("extractor.image.bias", torch.zeros(64, dtype=torch.int64)), "must be float32"),
    "of no part": (put("detector.backbone", torch.zeros(2)), "'detector.backbone' does not belong to this message"),
    "without a name": (put("", torch.zeros(2)), "'' does not belong to this message"),
    "too many": (
        lambda tensors: {f"extractor.{n}": torch.zeros(1) for n in range(1025)},
        "1025 are more than the 1024",
    ),
}


@pytest.mark.parametrize("kind", WITH_TENSORS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("change", STRANGE)
def test_tensors_that_do_not_belong_are_refused(messages, kind, change):
    changed, reason = STRANGE[change]
    with pytest.raises(WireError, match=f"^tensors: .*{reason}"):
        kind.unpack(repacked(sent(messages[kind]), changed))


@pytest.mark.parametrize(
    "versions",
    [None, "a" * 64, ["a" * 63], ["A" * 64], [3], [["a" * 64]], ["a" * 64 + "\n"], ["a" * 64] * 10_001],
    ids=lambda value: repr(value)[:20],
)
def test_versions_are_digests(messages, versions):
    with pytest.raises(WireError, match="^versions: a list of at most 10000 sha256 was expected"):
        ExtractJob.unpack(sent(messages[ExtractJob]) | {"versions": versions})


@pytest.mark.parametrize("kind", [ExtractJob, LearnJob], ids=lambda kind: kind.__name__)
def test_a_job_with_huge_weights_is_refused_before_it_is_run(messages, kind):
    huge = put("extractor.image.bias", torch.full((64,), 1.1e4))
    with pytest.raises(WireError, match="^extractor: image.bias holds numbers beyond 10000"):
        kind.unpack(repacked(sent(messages[kind]), huge))


def test_an_extract_job_says_plainly_whether_one_may_start_anew(messages):
    for value in (None, 1, "true"):
        with pytest.raises(WireError, match=f"^may_start_anew: {value!r} is neither true nor false"):
            ExtractJob.unpack(sent(messages[ExtractJob]) | {"may_start_anew": value})
    with pytest.raises(WireError, match="'importance.image.bias' does not belong"):
        ExtractJob.unpack(repacked(sent(messages[ExtractJob]), put("importance.image.bias", torch.zeros(64))))


def without(name):
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


LEARN = {
    "no embeddings": (without("results.embeddings"), "^results: one embedding and one performance"),
    "no performance": (without("results.performance"), "^results: one embedding and one performance"),
    "flat embeddings": (put("results.embeddings", torch.zeros(3)), "^results: "),
    "fewer embeddings": (put("results.embeddings", torch.zeros(2, 64)), "^results: "),
    "two performances each": (put("results.performance", torch.zeros(3, 2)), "^results: "),
    "short embeddings": (put("results.embeddings", torch.zeros(3, 63)), "^embeddings: rows of 64"),
    "short replay": (put("replay.meta_features", torch.zeros(5, 63)), "^replay: rows of 64"),
    "flat replay": (put("replay.meta_features", torch.zeros(64)), "^replay: rows of 64"),
    "a data set by name": (put("offline.wider.present", torch.zeros(2)), "^offline: the data sets must be numbered"),
    "a negative number": (put("offline.-1.present", torch.zeros(2)), "^offline: the data sets must be numbered"),
    "half a data set": (without("offline.1.present"), "^offline: .*lack present"),
    "flat features": (put("offline.0.features", torch.zeros(4, WIDTH)), "^offline: .*shapes"),
}


@pytest.mark.parametrize("change", LEARN)
def test_a_learn_job_of_wrong_shapes_is_refused(messages, change):
    changed, reason = LEARN[change]
    with pytest.raises(WireError, match=reason):
        LearnJob.unpack(repacked(sent(messages[LearnJob]), changed))


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, True, "0", None])
def test_a_seed_out_of_range_is_refused(messages, seed):
    with pytest.raises(WireError, match=f"^seed: {seed!r} is no whole number from 0 to 4294967295"):
        LearnJob.unpack(sent(messages[LearnJob]) | {"seed": seed})


META_FEATURES = [
    ([0.5] * 63, "a list of 64 numbers"),
    ([0.5] * 65, "a list of 64 numbers"),
    ("x" * 64, "a list of 64 numbers"),
    (0.5, "a list of 64 numbers"),
    ({str(n): 0.5 for n in range(64)}, "a list of 64 numbers"),
    ([[0.5]] * 64, "finite number"),
    ([math.nan] + [0.5] * 63, "finite number"),
    ([math.inf] + [0.5] * 63, "finite number"),
    ([True] * 64, "finite number"),
    ([None] * 64, "finite number"),
    (["0.5"] * 64, "finite number"),
    ([10**400] + [0] * 63, "finite number"),
    ([10**300] + [0] * 63, "finite number"),
    ([1e4] * 64, "its length exceeds 10000"),
]
SECONDS = [(-1.0, "no duration"), (math.nan, "no duration"), (None, "no duration"), ("1", "no duration")]

DESCRIPTIONS = [
    *(("meta_feature", value, reason) for value, reason in META_FEATURES),
    *(("seconds", value, reason) for value, reason in SECONDS),
    ("num_images", -1, "-1 is no count"),
    ("num_images", 2.5, "2.5 is no count"),
    ("num_images", 2.0, "2.0 is no count"),
    ("num_boxes", True, "True is no count"),
    ("num_boxes", "31", "'31' is no count"),
    ("num_boxes", 2**60, "is no count"),
    ("baseline", 1.01, "1.01 is no AP"),
    ("baseline", -0.1, "-0.1 is no AP"),
    ("baseline", math.nan, "nan is no AP"),
    ("baseline", None, "None is no AP"),
    ("baseline", True, "True is no AP"),
    ("baseline", "0.5", "'0.5' is no AP"),
    ("initial", 1, "1 is neither true nor false"),
    ("initial", None, "None is neither true nor false"),
    ("extractor", "b" * 63, "is no sha256"),
    ("extractor", 3, "3 is no sha256"),
    ("withheld", "few", "'few' is no reason for it"),
    ("among", -1, "-1 is no count"),
    ("among", None, "None is no count"),
    ("share", 1, "1 is neither true nor false"),
]


@pytest.mark.parametrize(("name", "value", "reason"), DESCRIPTIONS, ids=lambda value: repr(value)[-30:])
def test_a_description_out_of_range_is_refused_on_both_ends(messages, name, value, reason):
    description = messages[Description]
    with pytest.raises(WireError, match=f"^{name}: .*{reason}"):
        Description.unpack(description.pack() | {name: value})
    with pytest.raises(WireError, match=f"^{name}: .*{reason}"):
        dataclasses.replace(description, **{name: value})


def test_a_description_of_the_extremes_is_taken():
    longest = [1e4] + [0] * 63
    description = Description.unpack(sent(Description(longest, 2**53 - 1, 0, 1, True, 3)))
    assert description.meta_feature == tuple(map(float, longest)) and description.baseline == 1


def test_a_description_is_withheld_for_a_known_reason_only():
    with pytest.raises(WireError, match="^withheld: 'my images are in /home/me' is no reason for it"):
        Description(None, None, None, 0.5, withheld="my images are in /home/me")


UPDATES = {
    "no weights": (lambda tensors: {"importance.a": torch.zeros(1)}, "^extractor: the answer holds no weights"),
    "nothing at all": (lambda tensors: {"importance": torch.zeros(1)}, "^extractor: the answer holds no weights"),
    "huge weights": (
        put("extractor.image.bias", torch.full((64,), 1.1e4)),
        "^extractor: image.bias holds numbers beyond 10000",
    ),
    "huge importance": (put("importance.image.bias", torch.full((64,), 1e20)), "^importance: image.bias holds numbers"),
    "negative importance": (put("importance.image.bias", torch.full((64,), -1e-3)), "^importance: .*negative"),
    "a job's tensors": (put("results.performance", torch.zeros(2)), "'results.performance' does not belong"),
}


@pytest.mark.parametrize("change", UPDATES)
def test_an_update_out_of_range_is_refused(messages, change):
    changed, reason = UPDATES[change]
    with pytest.raises(WireError, match=reason):
        ExtractorUpdate.unpack(repacked(sent(messages[ExtractorUpdate]), changed))


@pytest.mark.parametrize(("value", "reason"), META_FEATURES, ids=lambda value: repr(value)[-30:])
def test_an_updates_meta_feature_is_checked_as_a_descriptions(messages, value, reason):
    with pytest.raises(WireError, match=f"^meta_feature: .*{reason}"):
        ExtractorUpdate.unpack(messages[ExtractorUpdate].pack() | {"meta_feature": value})


@pytest.mark.parametrize(("value", "reason"), SECONDS, ids=repr)
def test_an_updates_duration_is_checked_as_a_descriptions(messages, value, reason):
    with pytest.raises(WireError, match=f"^seconds: .*{reason}"):
        ExtractorUpdate.unpack(messages[ExtractorUpdate].pack() | {"seconds": value})


def test_a_trial_does_not_send_what_the_platform_would_refuse(extractor):
    for broken in (like(extractor, math.nan), like(extractor, 1e5)):
        with pytest.raises(WireError, match="^extractor: .*holds numbers beyond"):
            ExtractorUpdate(broken, {}, [0.0] * 64)
    with pytest.raises(WireError, match="^importance: it holds negative numbers"):
        ExtractorUpdate(extractor, like(extractor, -1.0), [0.0] * 64)


def test_tensors_without_entries_are_no_reason_to_fail(messages):
    """Whether they belong to an extractor is for the platform to see."""
    update = repacked(sent(messages[ExtractorUpdate]), put("extractor.image.bias", torch.zeros(0)))
    assert ExtractorUpdate.unpack(update).extractor["image.bias"].shape == (0,)


# -- where messages travel ---------------------------------------------------------------------------------------------


def test_a_trials_record_is_what_nnis_own_tuners_write():
    record = wire.trial_record(3, {"x": 1})
    assert record == {
        "parameter_id": 3,
        "parameter_source": "algorithm",
        "parameters": {"x": 1},
        "parameter_index": 0,
    }
    assert wire.job_in(record) is None and wire.parameters_in(record) == {"x": 1}


@pytest.mark.parametrize("kind", [ExtractJob, LearnJob], ids=lambda kind: kind.__name__)
def test_a_job_travels_beside_the_parameters_which_show_its_phase(messages, kind):
    record = json.loads(json.dumps(wire.trial_record(0, {"x": 1}, messages[kind])))
    assert record["parameters"] == {"phase": str(kind.phase), "x": 1}
    assert wire.parameters_in(record) == {"x": 1}
    assert wire.phase_of(record["parameters"]) is kind.phase
    job = wire.job_in(record)
    assert type(job) is kind and content(job) == content(messages[kind])


@pytest.mark.parametrize("record", [{}, {"parameters": None}, {"parameter_id": None, "parameters": {}}], ids=repr)
def test_a_record_may_be_empty(record):
    assert wire.parameters_in(record) == {} and wire.job_in(record) is None


@pytest.mark.parametrize("job", ["text", [], {"version": 2}, {"version": 1, "phase": ["extract"]}], ids=repr)
def test_what_stands_in_place_of_a_job_is_refused(job):
    with pytest.raises(WireError):
        wire.job_in(wire.trial_record(0, {}) | {"hyperfd": job})


def test_an_answer_travels_in_an_intermediate_result_whose_number_is_the_baseline(messages):
    described = wire.intermediate_result(messages[Description])
    assert described["default"] == messages[Description].baseline
    assert wire.answer_in(described) == messages[Description].pack()
    learned = wire.intermediate_result(messages[ExtractorUpdate])
    assert "default" not in learned, "NNI would take it for an AP"
    assert wire.answer_in(learned) == messages[ExtractorUpdate].pack()
    for value in (0.5, None, "text", [], {}, {"default": 0.5}):
        assert wire.answer_in(value) is None


def test_only_the_final_result_of_a_service_trial_is_one(messages):
    final = wire.final_result(messages[Description])
    assert final == {"default": 0.25, "seconds": 1.5, "phase": "extract"}
    assert wire.is_service_result(final) and wire.is_service_result({"phase": "learn"})
    for value in (0.5, None, "extract", ["extract"], {}, {"default": 0.5}, {"phase": "fine-tune"}, {"phase": []}):
        assert not wire.is_service_result(value)


@pytest.mark.parametrize(
    ("parameters", "phase"),
    [
        ({"phase": "extract", "x": 1}, Phase.EXTRACT),
        ({"phase": "learn"}, Phase.LEARN),
        ({}, Phase.FINE_TUNE),
        ({"phase": "fine-tune"}, Phase.FINE_TUNE),
        ({"phase": "import"}, Phase.FINE_TUNE),
        ({"phase": "my own"}, Phase.FINE_TUNE),
        ({"phase": ["extract"]}, Phase.FINE_TUNE),
        ({"phase": None}, Phase.FINE_TUNE),
    ],
    ids=repr,
)
def test_the_phase_of_parameters_is_fine_tuning_unless_they_name_a_service_trial(parameters, phase):
    assert wire.phase_of(parameters) is phase


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0.5, 0.5),
        (1, 1.0),
        (-3, -3.0),
        (1e38, 1e38),
        ({"default": 0.25, "loss": "x"}, 0.25),
        *((value, None) for value in (math.nan, math.inf, -math.inf, 1e39, 10**400, None, "0.7", True, [0.7])),
        *(({"default": value}, None) for value in (math.nan, None, "0.7", True, {"default": 1})),
        ({}, None),
        ({"loss": 0.5}, None),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_there_is_one_reading_of_what_nni_calls_a_metric(value, number):
    got = wire.final_number(value)
    assert got == number and isinstance(got, float | None)


@pytest.mark.parametrize("value", ["text", "", "[", None, 3, {"default": 1}, "[" * 100_000], ids=lambda v: repr(v)[:20])
def test_what_is_no_json_comes_back_for_the_tuner_to_refuse(value):
    assert wire.load_json(value) == value


@pytest.mark.parametrize("value", [0.5, 3, {"default": 0.5, "a": [1]}, None, "text"])
def test_json_is_read(value):
    assert wire.load_json(json.dumps(value)) == value


def test_a_pickle_in_a_metric_is_not_run(tmp_path):
    """`nni.load` would: {"__nni_obj__": ...} is how NNI writes objects that JSON does not know."""

    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    text = json.dumps({"__nni_obj__": base64.b64encode(pickle.dumps(Attack())).decode()})
    assert list(wire.load_json(text)) == ["__nni_obj__"]
    assert not (tmp_path / "owned").exists()
    nni.load(text)
    assert (tmp_path / "owned").exists(), "the attack is none, so this test proves nothing"


# -- one home ----------------------------------------------------------------------------------------------------------

ELSEWHERE = {
    ("experiment/class_args.py", "replay"),  # two arguments of the user's
    ("experiment/class_args.py", "seed"),
    ("platform/moving.py", "meta_feature"),  # an entry of an exported document
}


def keys_of_the_protocol(messages):
    keys = set(wire.trial_record(0, {}, messages[LearnJob])) - set(wire.trial_record(0, {}))
    keys |= set(wire.final_result(messages[Description])) - {"default"}  # NNI's own
    for message in messages.values():
        packed = message.pack()
        keys |= set(packed)
        if "tensors" in packed:
            names = weights.loads(weights.from_text(packed["tensors"]))
            keys |= {name.split(".")[0] for name in names}
            keys |= {name for name in names if name.startswith(("results.", "replay."))}
    return keys


def strings_in(file):
    """The string constants of a module, without its docstrings."""
    tree = ast.parse(file.read_text())
    described = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in described]
    return {node.value for node in constants if isinstance(node.value, str)}


def test_no_key_of_the_protocol_stands_anywhere_else(messages):
    keys, package = keys_of_the_protocol(messages), Path(nni_hyperfd.__file__).parent
    assert {"hyperfd", "version", "phase", "tensors", "sha256", "may_start_anew", "seconds", "initial"} <= keys
    assert {"extractor", "importance", "results", "offline", "replay", "results.embeddings"} <= keys
    assert keys <= strings_in(package / "wire.py")
    found = {
        (file.relative_to(package).as_posix(), key)
        for room in ("experiment", "platform")
        for file in (package / room).rglob("*.py")
        for key in strings_in(file) & keys
    }
    assert found == ELSEWHERE
