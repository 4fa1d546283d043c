"""The document of a state, written and read; what states do with it is in tests/platform/test_moving.py."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from nni_hyperfd.method import weights
from nni_hyperfd.platform import Platform, moving
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state import exchange
from nni_hyperfd.state.exchange import DocumentError, ExportedExtractor
from nni_hyperfd.task import Phase, TaskSettings
from support.own_datasets import begin_warm
from support.rows import add_task

FORMATS = Path(__file__).with_name("formats")
SETS = 2


@pytest.fixture(scope="module")
def exported(make_lab, tmp_path_factory):
    """The document of a warm-up and two closed tasks, one with a failed trial; a third task is open."""
    space, path = SearchSpace.from_nni(make_lab.space), tmp_path_factory.mktemp("export") / "state.sqlite"
    begin_warm(path, space, make_lab.score, SETS)
    platform = Platform(path)
    described = {"meta_feature": [0.25] * 64, "num_images": 20, "num_boxes": 31, "baseline": 0.25}
    add_task(platform, space, "first", [0.1, 0.3, 0.2], **described)
    add_task(platform, space, "second", [None, 0.2, 0.3], settings={"seed": 5}, **described)
    add_task(platform, space, "open", [0.1], closed=False)
    return json.dumps(moving.export(platform))


@pytest.fixture
def document(exported):
    return json.loads(exported)


# -- what a document holds --------------------------------------------------------------------------------------------


def test_an_export_holds_closed_tasks_and_what_was_learned(document):
    assert (document["format"], document["version"]) == (exchange.FORMAT, exchange.FORMAT_VERSION)
    experiments = [task["experiment"] for task in document["tasks"]]
    assert experiments[SETS:] == ["first", "second"] and all("warm-up" in name for name in experiments[:SETS])
    assert [task["dataset"] for task in document["tasks"]] == ["s0", "s1", None, None]
    first, second = document["tasks"][SETS:]
    assert [r["performance"] for r in first["results"]] == [0.1, 0.3, 0.2]
    assert all(r["phase"] == "fine-tune" for r in first["results"])
    assert [r["performance"] is None for r in second["results"]] == [True, False, False]
    assert first["extractor"] in document["extractors"] and first["description"]["meta_feature"] == [0.25] * 64
    initial, warm = document["extractors"].values()
    assert (initial["head"], warm["head"]) == (False, True) and warm["parent"] in document["extractors"]
    (encoder,) = document["encoders"]
    needed = {warm["weights"], warm["importance"], encoder["weights"], *document["offline"].values()}
    assert set(document["blobs"]) == needed and len(document["offline"]) == SETS


def test_what_is_read_is_what_was_written(document):
    found = exchange.read(document)
    assert [task.experiment for task in found.tasks] == [task["experiment"] for task in document["tasks"]]
    first, second = found.tasks[SETS:]
    assert second.settings == TaskSettings(service=False, seed=5) and first.dataset is None
    assert [(r.phase, r.performance) for r in first.results] == [(Phase.FINE_TUNE, p) for p in (0.1, 0.3, 0.2)]
    assert found.extractors[first.extractor].head
    assert {digest: weights.sha256(data) for digest, data in found.blobs.items()} == {d: d for d in found.blobs}
    (encoder,) = found.encoders
    assert encoder.space == first.space and encoder.weights in found.blobs
    assert set(found.offline) == {"s0", "s1"}


@pytest.mark.parametrize(("name", "own"), [("export_of_format1", 0), ("export_of_format2", 3)])
def test_documents_of_version_1_are_read(name, own):
    given = json.loads((FORMATS / f"{name}.json").read_text())
    found = exchange.read(given)
    assert [task.dataset is not None for task in found.tasks] == [True] * own + [False] * 2
    for task, exported in zip(found.tasks, given["tasks"], strict=True):
        assert task.experiment == exported["experiment"] and task.extractor == exported["extractor"]
        assert task.description["meta_feature"] == exported["description"]["meta_feature"]
        assert [result.performance for result in task.results] == [r["performance"] for r in exported["results"]]
        assert task.settings.budget == exported["settings"]["budget"]
        assert task.settings.preset == exported["settings"]["preset"]
    assert found.extractors == {task.extractor: ExportedExtractor(None, False, task.extractor) for task in found.tasks}
    assert found.encoders == [] and found.offline == {} and found.blobs == {}


def test_a_data_set_of_version_1_may_have_more_results_than_candidates():
    given = json.loads((FORMATS / "export_of_format2.json").read_text())
    given["tasks"][0]["settings"] |= {"budget": 300, "candidates": 200}
    assert exchange.read(given).tasks[0].settings == TaskSettings(budget=300, candidates=300, service=False)
    given["tasks"][-1]["settings"] |= {"budget": 300, "candidates": 200}
    with pytest.raises(DocumentError, match=r"tasks\[4\]: candidates: 200 are fewer than the budget of 300"):
        exchange.read(given)


def test_settings_may_be_short_and_come_from_a_json_writer_without_1_0(document):
    document["tasks"][SETS]["settings"] = {"exploration": 1}
    assert exchange.read(document).tasks[SETS].settings == TaskSettings(exploration=1.0)


def test_a_meta_feature_may_come_from_a_json_writer_without_1_0(document):
    document["tasks"][SETS]["description"]["meta_feature"] = [1] * 64
    (number,) = set(exchange.read(document).tasks[SETS].description["meta_feature"])
    assert type(number) is float and number == 1.0


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, [], "text", 3, {}, {"format": "something else", "version": 1, "tasks": []}])
def test_what_is_no_export_is_refused(content):
    with pytest.raises(DocumentError, match="no experience that 'hyperfd export' wrote"):
        exchange.read(content)


def test_a_newer_format_and_a_missing_list_are_refused(document):
    for version in (4, "2", None, [2]):
        with pytest.raises(DocumentError, match="the experience has format .*, this nni_hyperfd reads 1 to 3; upgrade"):
            exchange.read(document | {"version": version})
    for name in ("tasks", "encoders"):
        for value in (None, {}, "x", 3):
            with pytest.raises(DocumentError, match=f"{name}: a list was expected"):
                exchange.read(document | {name: value})
    del document["tasks"]
    with pytest.raises(DocumentError, match="tasks: a list was expected"):
        exchange.read(document)


def test_an_empty_state_has_an_empty_document(lab):
    found = exchange.read(json.loads(json.dumps(moving.export(Platform(lab.state)))))
    assert found == exchange.Document([], {}, [], {}, {})


def at(path, value):
    def change(task):
        *way, last = path
        for step in way:
            task = task[step]
        task[last] = value

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda task: task.pop("settings"), "'settings' is missing"),
        (lambda task: task.pop("extractor"), "'extractor' is missing"),
        (lambda task: task["description"].pop("baseline"), "'baseline' is missing"),
        (lambda task: task["results"][1].pop("phase"), "'phase' is missing"),
        (at(["space"], 3), ""),
        (at(["space", "definition"], {}), "it has no parameters"),
        (at(["space", "definition", "x", "_type"], "normal"), '"x"'),
        (at(["settings", "speed"], 1), "speed"),
        (at(["settings", "budget"], "4"), "budget: '4' is no whole number"),
        (at(["settings", "maximize"], 1), "maximize: 1 is neither true nor false"),
        (at(["settings", "seed"], None), "seed: None is no whole number"),
        (at(["settings", "seed"], 2**40), "seed: "),
        (at(["settings", "exploration"], "half"), "exploration: 'half'"),
        (at(["settings", "replay"], "all"), "replay: 'all' is none of none, meta-features"),
        (at(["settings", "preset"], "best"), "preset: 'best' is none of default, paper"),
        (at(["settings"], None), ""),
        (at(["extractor"], {}), "extractor: '{}' is none of the document's"),
        (at(["extractor"], "77"), "extractor: '77' is none of the document's"),
        (at(["dataset"], 3), "dataset: 3 is no name"),
        (at(["description", "meta_feature"], [1.0]), "meta_feature: a list of 64"),
        (at(["description", "meta_feature", 3], float("nan")), "meta_feature"),
        (at(["description", "num_images"], "many"), "num_images: 'many'"),
        (at(["description", "baseline"], 3), "baseline: 3"),
        (at(["results"], 3), ""),
        (at(["results", 1, "performance"], "0.5"), r"results\[1\]: '0.5' is no finite number"),
        (at(["results", 1, "performance"], float("inf")), r"results\[1\]: inf is no finite number"),
        (at(["results", 1, "performance"], True), r"results\[1\]: True is no finite number"),
        (at(["results", 1, "performance"], 10**400), r"results\[1\]"),
        (at(["results", 1, "phase"], "learn"), r"results\[1\]: 'learn' is no phase of a result"),
        (at(["results", 1, "configuration", "kind"], "z"), r"results\[1\]: kind: 'z' is none of"),
        (at(["results", 1, "configuration"], None), r"results\[1\]: a configuration is a JSON object"),
        (at(["results", 2], "x"), ""),
    ],
)
def test_a_malformed_task_is_refused_with_its_place(document, change, message):
    change(document["tasks"][SETS])
    with pytest.raises(DocumentError, match=rf"tasks\[{SETS}\]: .*{message}"):
        exchange.read(document)


def test_a_task_that_is_no_object_is_refused(document):
    document["tasks"].insert(0, None)
    with pytest.raises(DocumentError, match=r"tasks\[0\]"):
        exchange.read(document)


@pytest.mark.parametrize(
    "change, message",
    [
        (at(["extractor"], 3), "extractor: 3 is no sha256"),
        (at(["settings", "offline"], "yes"), "offline: 'yes' is neither true nor false"),
        (at(["settings", "budget"], "4"), "budget: '4' is no whole number"),
        (lambda task: task.pop("extractor"), "'extractor' is missing"),
    ],
)
def test_a_malformed_task_of_version_1_is_refused_with_its_place(change, message):
    given = json.loads((FORMATS / "export_of_format1.json").read_text())
    change(given["tasks"][1])
    with pytest.raises(DocumentError, match=rf"tasks\[1\]: .*{message}"):
        exchange.read(given)


def test_a_task_of_version_1_that_names_no_extractor_is_of_the_initial_one():
    given = json.loads((FORMATS / "export_of_format1.json").read_text())
    given["tasks"][1]["extractor"] = None
    found = exchange.read(given)
    assert found.extractors[found.tasks[1].extractor] == ExportedExtractor(None, False, None)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda d: d.pop("blobs"), "blobs: 'blobs' is missing"),
        (at(["blobs"], []), "blobs: "),
        (at(["blobs", 64 * "0"], "AAAA"), "blobs: 000000000000 is damaged"),
        (at(["blobs", 64 * "0"], "%%%"), "blobs: it is no base64 text"),
        (at(["blobs", 64 * "0"], 3), "blobs: it is no base64 text"),
        (at(["blobs", 64 * "0"], None), "blobs: it is no base64 text"),
        (lambda d: d.pop("extractors"), "extractors: a JSON object was expected"),
        (at(["extractors"], [1]), "extractors: a JSON object was expected"),
        (at(["extractors", "1"], None), r"extractors\[1\]: "),
        (at(["extractors", "2", "parent"], "7"), r"extractors\[2\]: its parent '7' does not come before it"),
        (at(["extractors", "2", "parent"], ["1"]), r"extractors\[2\]: "),
        (at(["extractors", "1", "parent"], "2"), r"extractors\[1\]: its parent '2' does not come before it"),
        (at(["extractors", "2", "head"], 1), r"extractors\[2\]: head cannot be 1"),
        (at(["extractors", "2", "weights"], 3), r"extractors\[2\]: 3 is no sha256"),
        (at(["extractors", "2", "described"], 3), r"extractors\[2\]: it is no base64 text"),
        (lambda d: d["extractors"]["2"].pop("importance"), r"extractors\[2\]: 'importance' is missing"),
        (at(["extractors", "1", "head"], True), "extractors: only one of them can be the newest"),
        (
            at(["extractors", "2", "weights"], 64 * "0"),
            r"extractors\[2\]: it is the newest one, and its weights are not",
        ),
        (at(["encoders", 0], None), r"encoders\[0\]: "),
        (at(["encoders", 0, "weights"], 64 * "0"), r"encoders\[0\]: its weights are not among the blobs"),
        (at(["encoders", 0, "weights"], [1]), r"encoders\[0\]: "),
        (at(["encoders", 0, "experiment"], "none"), r"encoders\[0\]: its task 'none' is none of the document's"),
        (at(["encoders", 0, "extractor"], ["2"]), r"encoders\[0\]: extractor: .* is none of the document's"),
        (at(["encoders", 0, "space", "definition"], {}), r"encoders\[0\]: .*it has no parameters"),
        (at(["offline"], 3), "offline: "),
        (lambda d: d.pop("offline"), "offline: 'offline' is missing"),
        (at(["offline", "s0"], 64 * "0"), "offline: the features of s0 are not among the blobs"),
        (at(["offline", "s0"], [1]), "offline: "),
    ],
)
def test_malformed_weights_are_refused_with_their_place(document, change, message):
    change(document)
    with pytest.raises(DocumentError, match=f"^{message}"):
        exchange.read(document)


def test_reading_leaves_the_document_as_it_is(document):
    before = copy.deepcopy(document)
    exchange.read(document)
    assert document == before
