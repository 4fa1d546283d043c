"""Experience moves between states, with what was learned from it."""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path

import pytest
import torch

from nni_hyperfd.method import MetaFeatureExtractor, fit_transform, recipe, weights
from nni_hyperfd.platform import Platform, moving
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state.exchange import DocumentError
from nni_hyperfd.state.store import Store
from nni_hyperfd.task import Preset, Status, TaskSettings
from support.own_datasets import begin_warm, packed
from support.rows import add_task

FORMATS = Path(__file__).parents[1] / "state" / "formats"
SETS = 3


@pytest.fixture(scope="module")
def warm(make_lab, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("warm") / "warm.sqlite"
    begin_warm(path, SearchSpace.from_nni(make_lab.space), make_lab.score, SETS)
    return path


@pytest.fixture(scope="module")
def exported(make_lab, tmp_path_factory, warm):
    """A state that began with the warm-up and has two closed tasks, and its document."""
    with pytest.MonkeyPatch.context() as patch:
        lab = make_lab(tmp_path_factory.mktemp("export"), patch)
        lab.run(lab.tuner("first", budget=2, preset="paper", warm_start=str(warm)))
        second = lab.tuner("second", budget=3, seed=5, optimize_mode="minimize")
        lab.step(second, lab.dataset(2))
        parameter_id = second.next_parameter_id()
        second.ask(parameter_id)
        second.trial_end(parameter_id, False)
        lab.run(second, lab.dataset(2))
        return lab.content(), json.dumps(moving.export(second.platform))


@pytest.fixture
def source(lab, exported):
    """The platform that the document is of."""
    path = lab.folder / "source.sqlite"
    path.write_bytes(exported[0])
    return Platform(path)


@pytest.fixture
def document(exported):
    return json.loads(exported[1])


@pytest.fixture
def space(lab):
    return SearchSpace.from_nni(lab.space)


def told(platform):
    """What a state tells of its tasks, whatever the ids."""
    return {
        task.experiment: (
            task.dataset,
            task.settings,
            [(t.phase, t.status, t.configuration, t.performance) for t in task.trials if t.tries],
            (task.num_images, task.num_boxes, task.baseline),
        )
        for task in platform.tasks()
    }


def networks(platform, space):
    """The newest versions, as bytes."""
    extractor, importance = platform.versions.tensors(platform.versions.head_id())
    encoder = platform.versions.encoder(space)
    return [weights.dumps(tensors) for tensors in (extractor, importance, encoder.encoder.state_dict())]


# -- into an empty state ----------------------------------------------------------------------------------------------


def test_an_empty_state_becomes_the_other_one(lab, source, document, space):
    platform = Platform(lab.state)
    assert moving.import_(platform, document) == SETS + 2
    assert told(platform) == told(source)
    assert networks(platform, space) == networks(source, space)
    assert [task.meta_feature for task in platform.tasks()] == [task.meta_feature for task in source.tasks()]
    assert {name: digest for name, (digest, _) in platform.versions.offline_by_name().items()} == {
        name: digest for name, (digest, _) in source.versions.offline_by_name().items()
    }
    counts = platform.counts()
    assert counts["extractor versions"] == source.counts()["extractor versions"] and counts["encoder versions"] == 1
    for preset in Preset:
        for like in (None, SETS + 1):
            settings = TaskSettings(candidates=30, preset=preset)
            assert platform.rank(space, like, settings) == source.rank(space, like, settings)


def test_the_next_experiment_goes_on_as_it_would_have_in_the_other_state(lab, source, document, space):
    moving.import_(Platform(lab.state), document)
    ended = []
    for state in (lab.state, source.store.path):
        tuner = lab.tuner("third", state=str(state), budget=2, preset="paper")
        picks = lab.run(tuner, lab.dataset(3))
        ended.append((picks, networks(tuner.platform, space), tuner.platform.task(tuner.task_id).meta_feature))
    assert ended[0] == ended[1]


def test_what_was_imported_is_exported_alike(lab, source, document):
    moving.import_(Platform(lab.state), document)
    again = moving.export(Platform(lab.state))
    assert json.loads(json.dumps(again)) == document


# -- into a state that holds something --------------------------------------------------------------------------------


def test_an_import_brings_the_experience_once(lab, document, space):
    platform = Platform(lab.state)
    add_task(platform, space, "mine", [0.1, 0.2])
    assert moving.import_(platform, document) == SETS + 2
    statuses = [trial.status for trial in platform.tasks()[-1].trials]
    assert statuses == [Status.FAILED, Status.SUCCEEDED, Status.SUCCEEDED]
    state, counts = told(platform), platform.counts()
    assert counts["encoder versions"] >= 1, "the encoder has learned from it"
    assert moving.import_(platform, document) == 0
    assert told(platform) == state and platform.counts() == counts


def test_a_state_that_began_with_the_same_warm_up_keeps_the_meta_features(lab, warm, source, document, space):
    Store(lab.state, warm).close()
    platform = Platform(lab.state)
    assert moving.import_(platform, document) == 2
    imported, theirs = platform.tasks()[SETS:], source.tasks()[SETS:]
    assert [task.meta_feature for task in imported] == [task.meta_feature for task in theirs]
    assert [task.dataset for task in imported] == [None, None]
    head_id = platform.versions.head_id()
    assert head_id not in {task.extractor_id for task in imported}, "its own extractor stays the newest"
    carried = platform.versions.carried(imported, head_id)
    described = platform.versions.described([head_id, *(task.extractor_id for task in imported)])
    both = list(platform.versions.offline())
    assert len(both) == SETS
    for task in imported:
        rows, wanted = (torch.stack([described[v][sha] for sha in both]) for v in (task.extractor_id, head_id))
        torch.testing.assert_close(carried[task.id], fit_transform(rows, wanted) @ torch.tensor(task.meta_feature))
    ranking = platform.rank(space, imported[0].id, TaskSettings())
    assert ranking.neighbours[0].task_id == imported[0].id
    assert {other.task_id for other in ranking.neighbours} == {task.id for task in platform.tasks()}


def test_an_unrelated_state_leaves_the_meta_features_out(lab, document, space):
    platform = Platform(lab.state)
    platform.versions.head_id()
    assert moving.import_(platform, document) == SETS + 2
    assert [task.meta_feature for task in platform.tasks()] == [None] * (SETS + 2)
    assert [task.num_images for task in platform.tasks()] == [20] * (SETS + 2)
    assert platform.counts()["offline data sets"] == 0 and platform.counts()["extractor versions"] == 1
    # What an import leaves out may be exported and imported again.
    third = Platform(lab.folder / "third.sqlite")
    assert moving.import_(third, json.loads(json.dumps(moving.export(platform)))) == SETS + 2
    assert told(third) == told(platform)


def test_what_the_initial_extractor_has_described_means_the_same_in_every_state(lab, space):
    first, second = Platform(lab.state), Platform(lab.folder / "second.sqlite")
    described = {"meta_feature": [0.25] * 64, "num_images": 1, "num_boxes": 2, "baseline": 0.5}
    add_task(first, space, "a", [0.1, 0.2], **described)
    add_task(second, space, "b", [0.1, 0.2])
    assert moving.import_(second, moving.export(first)) == 1
    assert second.tasks()[-1].meta_feature == (0.25,) * 64
    assert second.tasks()[-1].extractor_id == second.versions.head_id()


def test_the_encoder_learns_from_every_imported_task_once(lab, warm, document, space, monkeypatch):
    learned, learned_encoder = [], recipe.learned_encoder

    def watch(encoder, current, *others):
        learned.append(current.performance.tolist())
        return learned_encoder(encoder, current, *others)

    monkeypatch.setattr(recipe, "learned_encoder", watch)
    tasks = [
        [r["performance"] for r in task["results"] if r["performance"] is not None] for task in document["tasks"][SETS:]
    ]
    expected = [tasks[0], [-performance for performance in tasks[1]]]
    for name, begin in {"warm": lambda path: Store(path, warm), "without an encoder": lambda path: Store(path)}.items():
        path = lab.folder / f"{name}.sqlite"
        begin(path).close()
        platform = Platform(path)
        platform.versions.head_id()
        learned.clear()
        moving.import_(platform, document)
        assert [[round(p, 5) for p in own] for own in learned] == [[round(p, 5) for p in own] for own in expected], name


# -- earlier documents ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "own"), [("export_of_format1", 0), ("export_of_format2", 3)])
@pytest.mark.parametrize("empty", [True, False], ids=["empty", "not empty"])
def test_a_document_without_weights_brings_its_results(lab, name, own, empty):
    given = json.loads((FORMATS / f"{name}.json").read_text())
    platform = Platform(lab.state)
    if not empty:
        platform.versions.head_id()
    assert moving.import_(platform, given) == own + 2
    tasks = platform.tasks()
    assert [task.experiment for task in tasks] == [task["experiment"] for task in given["tasks"]]
    assert [task.dataset is not None for task in tasks] == [True] * own + [False] * 2
    for task, exported in zip(tasks, given["tasks"], strict=True):
        assert [t.performance for t in task.trials] == [result["performance"] for result in exported["results"]]
        assert (task.num_images, task.num_boxes) == (20, 31) and task.closed is not None
    assert [task.settings.maximize for task in tasks[own:]] == [True, False]
    assert [task.settings.preset for task in tasks[own:]] == [Preset.PAPER, Preset.DEFAULT]
    assert all(task.meta_feature is None for task in tasks), "nobody knows what made them"
    assert networks(platform, tasks[0].space)[0] == weights.dumps({}), "the initial extractor"
    assert platform.counts()["encoder versions"] >= 1, "the encoder has learned from it"
    lab.run(lab.tuner("next", budget=2))


# -- documents that are refused as a whole ----------------------------------------------------------------------------


def reblob(document, tensors):
    """Put tensors among the blobs; their sha256."""
    data = weights.dumps(tensors)
    document["blobs"][weights.sha256(data)] = base64.b64encode(data).decode()
    return weights.sha256(data)


def head_of(document):
    return next(extractor for extractor in document["extractors"].values() if extractor["head"])


def another_extractor(document):
    head_of(document)["weights"] = reblob(document, {"a": torch.ones(2)})


def narrow_extractor(document):
    narrow = MetaFeatureExtractor.initial(12, 0, hidden=32).state_dict()
    head_of(document)["weights"] = reblob(document, narrow)
    head_of(document)["importance"] = reblob(document, {name: torch.zeros_like(t) for name, t in narrow.items()})


def another_importance(document):
    head_of(document)["importance"] = reblob(document, {"a": torch.ones(2)})


def another_encoder(document):
    document["encoders"][0]["weights"] = reblob(document, {"a": torch.ones(2)})


def no_data_set(document):
    document["offline"]["s0"] = reblob(document, {"a": torch.ones(2)})


def data_set_of_another_detector(document):
    document["offline"]["s0"] = reblob(document, weights.loads(packed(dim=9)))


def data_set_out_of_range(document):
    document["offline"]["s0"] = reblob(document, weights.loads(packed(huge=True)))


def short_descriptions(document):
    data = weights.dumps({"a": torch.ones(63)})
    head_of(document)["described"] = base64.b64encode(data).decode()


def described_by_no_weights(document):
    head_of(document)["described"] = "AAAA"


def blob_that_is_no_weights(document):
    document["blobs"][weights.sha256(b"notes")] = base64.b64encode(b"notes").decode()


def head_without_weights(document):
    del document["blobs"][head_of(document)["weights"]]


def head_without_importance(document):
    del document["blobs"][head_of(document)["importance"]]


def two_heads(document):
    next(iter(document["extractors"].values()))["head"] = True


REFUSED = {
    another_extractor: r"extractors\[\d\]: .*not the weights of a meta-feature extractor",
    narrow_extractor: r"extractors\[\d\]: .*64",
    another_importance: r"extractors\[\d\]: .*importance",
    another_encoder: r"encoders\[0\]: ",
    no_data_set: r"offline\[s0\]: .*lack",
    data_set_of_another_detector: r"offline\[s0\]: .*detector",
    data_set_out_of_range: r"offline\[s0\]: .*out of range",
    short_descriptions: r"extractors\[\d\]: .*64",
    described_by_no_weights: r"extractors\[\d\]: .*safetensors",
    blob_that_is_no_weights: r"blobs: .*safetensors",
    head_without_weights: r"extractors\[\d\]: .*not among the blobs",
    head_without_importance: r"extractors\[\d\]: .*not among the blobs",
    two_heads: r"extractors: .*one",
}


@pytest.mark.parametrize("empty", [True, False], ids=["empty", "not empty"])
@pytest.mark.parametrize("change", REFUSED, ids=lambda change: change.__name__)
def test_what_could_not_be_used_later_is_refused_before_anything_is_added(lab, document, space, change, empty):
    change(document)
    platform = Platform(lab.state)
    if not empty:
        add_task(platform, space, "mine", [0.1, 0.2])
    before, counts = told(platform), platform.counts()
    with pytest.raises(DocumentError, match=REFUSED[change]):
        moving.import_(platform, copy.deepcopy(document))
    assert told(platform) == before and platform.counts() == counts
