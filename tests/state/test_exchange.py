from __future__ import annotations

import copy
import json

import pytest

from nni_hyperfd.platform.platform import Platform
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state import exchange
from nni_hyperfd.state.exchange import DocumentError


@pytest.fixture(scope="module")
def exported(make_lab, tmp_path_factory):
    """The document of two closed tasks, one with a failed trial; a third task is open."""
    with pytest.MonkeyPatch.context() as patch:
        lab = make_lab(tmp_path_factory.mktemp("export"), patch)
        lab.run(lab.tuner("first", budget=3))
        second = lab.tuner("second", budget=3, seed=5, exploration=1, preset="paper")
        lab.step(second, lab.dataset(2))
        parameter_id = second.next_parameter_id()
        second.ask(parameter_id)
        second.trial_end(parameter_id, False)
        lab.run(second, lab.dataset(2))
        lab.tuner("open")
        return json.dumps(second.platform.export())


@pytest.fixture
def document(exported):
    return json.loads(exported)


def results(platform):
    return {
        task.experiment: [(t.phase, t.status, t.configuration, t.performance) for t in task.trials]
        for task in platform.tasks()
    }


def test_an_export_holds_closed_tasks_and_neither_weights_nor_open_ones(document):
    assert (document["format"], document["version"]) == (exchange.FORMAT, 1)
    assert [task["experiment"] for task in document["tasks"]] == ["first", "second"]
    first, second = document["tasks"]
    assert len(first["results"]) == 3 and all(r["phase"] == "fine-tune" for r in first["results"])
    assert [r["performance"] is None for r in second["results"]] == [True, False, False]
    assert len(first["description"]["meta_feature"]) == 64 and len(first["extractor"]) == 64
    assert len(json.dumps(document)) < 20_000, "no weights"


def test_an_import_into_another_state_brings_the_experience_once(lab, document):
    platform = Platform(lab.state)
    assert platform.import_(document) == 2
    got = results(platform)
    for task in document["tasks"]:
        expected = [(r["phase"], r["configuration"], r["performance"]) for r in task["results"]]
        assert [(phase, c, p) for phase, _, c, p in got[task["experiment"]]] == expected
    assert [status for _, status, _, _ in got["second"]] == ["failed", "succeeded", "succeeded"]
    counts = platform.counts()
    assert counts["ranker versions"] == 2, "the ranker has learned from it"
    assert platform.import_(document) == 0
    assert results(platform) == got and platform.counts() == counts


def test_a_meta_feature_is_left_out_where_its_extractor_is_not_and_kept_where_it_is(lab, document):
    platform = Platform(lab.state)
    initial = copy.deepcopy(document)
    initial["tasks"][0]["extractor"] = None  # the seeded initial version, which every state has
    platform.import_(initial)
    first, second = platform.tasks()
    assert first.meta_feature == document["tasks"][0]["description"]["meta_feature"]
    assert second.meta_feature is None
    assert (second.num_images, second.baseline) == (20, 0.25)
    # What an import leaves out may be exported and imported again.
    third = Platform(lab.folder / "third.sqlite")
    assert third.import_(platform.export()) == 2
    assert [task.num_images for task in third.tasks()] == [20, 20]


def test_a_task_in_the_new_state_starts_from_the_imported_experience(lab, document):
    Platform(lab.state).import_(document)
    tuner = lab.tuner("third", budget=2)
    lab.run(tuner, lab.dataset(3))
    assert tuner.platform.counts()["ranker versions"] == 3
    (nearest,) = tuner.platform.rank(SearchSpace.from_nni(lab.space), 3, tuner.settings).neighbours
    assert (nearest.task_id, nearest.distance) == (3, pytest.approx(0))


def test_settings_may_be_short_and_come_from_a_json_writer_without_1_0(document):
    document["tasks"][0]["settings"] = {"exploration": 1}
    settings = exchange.read(document)[0].settings
    assert settings["exploration"] == 1 and settings["maximize"] is True and settings["budget"] == 4


@pytest.mark.parametrize("content", [None, [], "text", 3, {}, {"format": "something else", "version": 1, "tasks": []}])
def test_what_is_no_export_is_refused(content):
    with pytest.raises(DocumentError, match="no experience that 'hyperfd export' wrote"):
        exchange.read(content)


def test_a_newer_format_and_a_missing_list_are_refused(document):
    with pytest.raises(DocumentError, match="has format 2.*reads 1; upgrade"):
        exchange.read(document | {"version": 2})
    for tasks in (None, {}, "x"):
        with pytest.raises(DocumentError, match="tasks: a list was expected"):
            exchange.read(document | {"tasks": tasks})
    del document["tasks"]
    with pytest.raises(DocumentError, match="tasks: a list was expected"):
        exchange.read(document)
    assert exchange.read(document | {"tasks": []}) == []


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
        (at(["settings", "budget"], "4"), "settings: budget cannot be '4'"),
        (at(["settings", "maximize"], 1), "settings: maximize cannot be 1"),
        (at(["settings", "seed"], None), "settings: seed cannot be None"),
        (at(["settings", "seed"], 2**40), "settings: seed"),
        (at(["settings", "exploration"], "half"), "settings: exploration"),
        (at(["settings", "replay"], "all"), "settings: replay 'all' is none of none, meta-features"),
        (at(["settings", "preset"], "best"), "settings: preset 'best' is none of default, paper"),
        (at(["extractor"], {}), "extractor: {} is no sha256"),
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
def test_a_malformed_task_is_refused_with_its_place_and_nothing_is_added(lab, document, change, message):
    change(document["tasks"][1])
    platform = Platform(lab.state)
    with pytest.raises(DocumentError, match=rf"tasks\[1\]: .*{message}"):
        platform.import_(document)
    assert platform.tasks() == []


def test_a_task_that_is_no_object_is_refused(document):
    document["tasks"].insert(0, None)
    with pytest.raises(DocumentError, match=r"tasks\[0\]"):
        exchange.read(document)
