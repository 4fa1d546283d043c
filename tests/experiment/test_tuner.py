from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from nni import NoMoreTrialError
from sqlalchemy import select

from nni_hyperfd.experiment.tuner import ClassArgsError, HyperFDTuner, ServiceTuner
from nni_hyperfd.method import MetaFeatureExtractor, features, fit_transform, weights
from nni_hyperfd.platform.platform import Platform
from nni_hyperfd.space import SearchSpace, SpaceError
from nni_hyperfd.state.store import Blob, Extractor, StateError
from nni_hyperfd.state.versions import Versions


def task_of(tuner):
    return tuner.platform.task(tuner.task_id)


def trials_of(tuner, phase=None):
    return [t for t in task_of(tuner).trials if phase in (None, t.phase)]


def extracted(lab, tuner):
    """The task after its extract trial: the picks are planned."""
    assert lab.step(tuner).parameters["phase"] == "extract"
    return tuner


def ready_to_learn(lab, tuner):
    """The learn job of the task, running; its parameter id."""
    while True:
        parameter_id = tuner.next_parameter_id()
        if all(t.phase != "learn" for t in trials_of(tuner)):
            lab.step(tuner)
        else:
            return tuner.ask(parameter_id), parameter_id


def good_answer(lab, job):
    (answer,), final = lab.serve(job)
    assert final == []
    return answer["hyperfd"]


# -- the whole way of a task ------------------------------------------------------------------------------------------


def test_a_task_goes_from_the_extract_answer_over_its_picks_to_new_versions(lab):
    tuner = lab.tuner("first", budget=3, preset="paper", exploration=0.0)
    assert not tuner.done
    assert task_of(tuner).meta_feature is None
    extract = tuner.ask(0)
    assert extract.parameters["phase"] == "extract"
    assert extract.service == {"phase": "extract", "weights": None}
    assert tuner.ask(1) is None, "the picks wait for the meta-feature"

    (answer,), (final,) = lab.serve(extract)
    tuner.receive_intermediate(0, answer)
    tuner.receive_trial_result(0, None, final)
    tuner.trial_end(0, True)
    task = task_of(tuner)
    assert task.meta_feature == answer["hyperfd"]["meta_feature"]
    assert (task.num_images, task.num_boxes, task.baseline) == (20, 31, 0.25)

    jobs = [tuner.ask(i) for i in (1, 2, 3)]
    assert all(job.service is None and set(job.parameters) == {"kind", "x", "y"} for job in jobs), "all at once"
    assert tuner.ask(4) is None
    picks = trials_of(tuner, "fine-tune")
    assert [p.rank for p in picks] == [1, 2, 3] and picks[0].score >= picks[1].score >= picks[2].score
    for i, job in enumerate(jobs, start=1):
        assert tuner.ask(4) is None
        tuner.receive_intermediate(i, 0.3)
        tuner.receive_trial_result(i, None, {"default": lab.score(job.parameters), "note": "kept by NNI"})
        tuner.trial_end(i, True)

    learn = tuner.ask(4)
    assert learn.parameters == {"phase": "learn"}
    sent = weights.loads(weights.from_text(learn.service["weights"]))
    assert sent["performance"].tolist() == pytest.approx([lab.score(job.parameters) for job in jobs])
    assert sent["embeddings"].shape == (3, 64)
    assert not tuner.done and tuner.platform.counts()["extractor versions"] == 1
    (update,), final = lab.serve(learn)
    assert final == [], "NNI would take it for an AP"
    tuner.receive_intermediate(4, update)
    tuner.trial_end(4, True)

    assert tuner.done and tuner.ask(5) is None
    counts = tuner.platform.counts()
    assert (counts["extractor versions"], counts["ranker versions"]) == (2, 1)
    task = task_of(tuner)
    assert task.meta_feature == update["hyperfd"]["meta_feature"] != answer["hyperfd"]["meta_feature"]
    assert {t.status for t in task.trials} == {"succeeded"}

    # The next data set starts from there.
    second = lab.tuner("second", budget=2)
    job = second.ask(0)
    kept = weights.loads(weights.from_text(job.service["weights"]))
    returned = weights.loads(weights.from_text(update["hyperfd"]["update"]))
    assert kept and all(torch.equal(returned[f"extractor.{name}"], tensor) for name, tensor in kept.items())
    assert {name.split(".")[0] for name in returned} == {"extractor", "importance"}
    (answer,), _ = lab.serve(job, lab.dataset(2))
    extractor, data = MetaFeatureExtractor.from_weights(kept), lab.dataset(2)
    described = extractor(data.image_features(20, 0), torch.tensor([20.0, 31.0])).tolist()
    assert answer["hyperfd"]["meta_feature"] == pytest.approx(described, abs=1e-5)
    initial = MetaFeatureExtractor.initial(12, seed=0)(data.image_features(20, 0), torch.tensor([20.0, 31.0])).tolist()
    assert max(abs(a - b) for a, b in zip(described, initial, strict=True)) > 1e-3
    second.platform.release(second.task_id, set())
    lab.run(second, lab.dataset(2))
    after_second = second.platform.counts()
    assert after_second["extractor versions"] == 3 and after_second["ranker versions"] == 2


def test_old_meta_features_are_carried_over_by_the_map_that_fits_the_offline_data_sets(lab):
    """Also from versions whose weights have been dropped; here they are taken from the learn trials' answers."""
    platform = Platform(lab.state)
    offline = [(lab.dataset(seed + 50).image_features(20, 0), torch.tensor([20.0, 31.0])) for seed in range(3)]
    for seed, (images, counts) in enumerate(offline):
        platform.add_offline(f"off{seed}", weights.dumps(features.pack(images, counts)))
    extractors = {}
    for number, name in enumerate(("one", "two", "three"), start=1):
        tuner = lab.tuner(name, budget=2)
        lab.step(tuner, lab.dataset(number))
        lab.step(tuner), lab.step(tuner)
        job, parameter_id = ready_to_learn(lab, tuner)
        (update,), _ = lab.serve(job, lab.dataset(number))
        returned = weights.loads(weights.from_text(update["hyperfd"]["update"]))
        extractors[number + 1] = MetaFeatureExtractor.from_weights(weights.under(returned, "extractor"))
        tuner.receive_intermediate(parameter_id, update)
    with torch.no_grad():
        described = {v: torch.stack([extractor(*data) for data in offline]) for v, extractor in extractors.items()}
    with platform.store.read() as session:
        versions = Versions(platform.store, session)
        carried = versions.meta_features(platform.tasks(), 4)
        kept = set(session.scalars(select(Blob.sha256)))
        assert [v.weights in kept for v in session.scalars(select(Extractor).where(Extractor.id > 1))] == [0, 0, 1]
    for task in platform.tasks():
        matrix = fit_transform(described[task.extractor_id], described[4])
        torch.testing.assert_close(carried[task.id], matrix @ torch.tensor(task.meta_feature))
    source = described[2]
    assert (source @ fit_transform(source, described[4]).T - described[4]).norm() < (source - described[4]).norm()


def test_same_seed_same_recommendations_whatever_ran_before_in_the_process(lab, tmp_path):
    def recommendations(name, seed):
        lab.state = tmp_path / name
        torch.manual_seed(len(name))
        return [lab.run(lab.tuner("e1", seed=seed)), lab.run(lab.tuner("e2", seed=seed), lab.dataset(2))]

    first = recommendations("a", 3)
    assert recommendations("some other state", 3) == first
    assert recommendations("c", 4) != first


@pytest.mark.parametrize("exploration, ranked", [(0.0, [1, 2, 3, 4]), (0.5, [1, 2]), (0.3, [1, 2, 3]), (1.0, [])])
def test_budget_and_exploration_are_respected(lab, exploration, ranked):
    tuner = extracted(lab, lab.tuner("e", budget=4, preset="paper", exploration=exploration, candidates=30))
    for parameter_id in range(1, 5):
        tuner.ask(parameter_id)
    picks = trials_of(tuner, "fine-tune")
    assert len(picks) == 4
    assert [p.rank for p in picks][: len(ranked)] == ranked
    assert len({json.dumps(p.configuration) for p in picks}) == 4
    if exploration == 1.0:
        assert [p.rank for p in picks] != [1, 2, 3, 4]


def test_past_experience_reaches_the_ranking(lab):
    """Six tasks that all like the same kind most teach the ranker to put it first for a seventh."""

    def score(parameters):
        return {"a": 0.9, "b": 0.5, "c": 0.1}[parameters["kind"]]

    small = {"kind": lab.space["kind"]}
    for number in range(6):
        tuner = lab.tuner(f"e{number}", small, budget=3, candidates=3)
        lab.run(tuner, lab.dataset(number), score)
    ranking = tuner.platform.rank(SearchSpace.from_nni(small), None, tuner.settings)
    assert [r.configuration["kind"] for r in ranking.recommendations] == ["a", "b", "c"]


def test_minimise_learns_that_less_is_more(lab):
    def loss(parameters):
        return {"a": 0.1, "b": 0.5, "c": 0.9}[parameters["kind"]]

    small = {"kind": lab.space["kind"]}
    for number in range(6):
        tuner = lab.tuner(f"e{number}", small, budget=3, candidates=3, optimize_mode="minimize")
        lab.step(tuner, lab.dataset(number))
        for _ in range(3):
            lab.step(tuner, None, loss)
        job, parameter_id = ready_to_learn(lab, tuner)
        sent = weights.loads(weights.from_text(job.service["weights"]))
        assert sorted(sent["performance"].tolist()) == pytest.approx([-0.9, -0.5, -0.1])
        tuner.trial_end(parameter_id, False)
    assert {t.performance for t in trials_of(tuner, "fine-tune")} == {0.1, 0.5, 0.9}
    ranking = tuner.platform.rank(SearchSpace.from_nni(small), None, tuner.settings)
    assert ranking.recommendations[0].configuration == {"kind": "a"}


def test_a_space_smaller_than_the_budget_is_tried_in_full_and_then_learned_from(lab):
    tuner = lab.tuner("e", {"kind": lab.space["kind"]}, budget=10)

    def score(parameters):
        return 0.1 * ord(parameters["kind"])

    parameters = lab.run(tuner, None, score)
    assert parameters[0]["phase"] == "extract" and parameters[-1] == {"phase": "learn"}
    assert sorted(p["kind"] for p in parameters[1:-1]) == ["a", "b", "c"]


# -- what trials report -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, None, "0.7", True, [0.7], {}, {"default": None}, {"default": "0.7"}, 1e39, 10**400],
    ids=repr,
)
def test_a_result_that_is_no_usable_number_is_a_failed_trial_and_no_exception(lab, value):
    tuner = extracted(lab, lab.tuner("e", budget=1))
    tuner.ask(1)
    tuner.receive_trial_result(1, None, value)
    tuner.trial_end(1, True)
    (pick,) = trials_of(tuner, "fine-tune")
    assert (pick.status, pick.performance) == ("failed", None)
    assert "instead of a finite number" in pick.reason
    assert tuner.ask(2).parameters == {"phase": "learn"}, "the budget is spent all the same"


@pytest.mark.parametrize("value, kept", [(0.5, 0.5), (1, 1.0), ({"default": 0.25, "loss": "x"}, 0.25), (-3, -3.0)])
def test_numbers_and_dicts_with_a_default_are_results(lab, value, kept):
    tuner = extracted(lab, lab.tuner("e", budget=1))
    tuner.ask(1)
    tuner.receive_trial_result(1, None, value)
    (pick,) = trials_of(tuner, "fine-tune")
    assert (pick.status, pick.performance) == ("succeeded", kept)


def test_the_first_of_two_finals_stands_and_a_late_result_replaces_a_failure(lab):
    tuner = extracted(lab, lab.tuner("e", budget=2))
    tuner.ask(1), tuner.ask(2)
    tuner.receive_trial_result(1, None, 0.5)
    tuner.receive_trial_result(1, None, 0.9)
    tuner.receive_trial_result(1, None, math.nan)
    tuner.trial_end(1, False)
    tuner.trial_end(2, False)
    first, second = trials_of(tuner, "fine-tune")
    assert (first.status, first.performance) == ("succeeded", 0.5)
    assert (second.status, second.reason) == ("failed", "failed")
    tuner.receive_trial_result(2, None, 0.7)
    assert trials_of(tuner, "fine-tune")[1].performance == 0.7
    assert trials_of(tuner, "fine-tune")[1].reason is None


def test_a_trial_that_ends_without_a_result_has_failed(lab):
    tuner = extracted(lab, lab.tuner("e", budget=1))
    tuner.ask(1)
    tuner.trial_end(1, True)
    assert trials_of(tuner, "fine-tune")[0].reason == "ended without reporting a result"


def test_unknown_parameter_ids_are_ignored_with_a_warning(lab, caplog):
    tuner = extracted(lab, lab.tuner("e", budget=1))
    before = [(t.status, t.performance) for t in trials_of(tuner)]
    tuner.receive_trial_result(77, None, 0.5)
    assert "no trial with parameter id 77" in caplog.text
    tuner.receive_intermediate(78, {"default": 0.5, "hyperfd": {}})
    tuner.trial_end(79, True)
    assert [(t.status, t.performance) for t in trials_of(tuner)] == before


def test_all_trials_failing_still_closes_the_task(lab):
    tuner = lab.tuner("e", budget=2)
    for parameter_id in range(3):
        assert tuner.ask(parameter_id) is not None
        tuner.trial_end(parameter_id, False)
    assert tuner.done
    assert tuner.platform.counts()["ranker versions"] == 0, "nothing to learn from"


def test_with_every_pick_failing_the_learn_job_is_still_sound(lab):
    tuner = extracted(lab, lab.tuner("e", budget=2))
    for parameter_id in (1, 2):
        tuner.ask(parameter_id)
        tuner.trial_end(parameter_id, False)
    job = tuner.ask(3)
    tuner.receive_intermediate(3, {"default": 0.0, "hyperfd": good_answer(lab, job)})
    assert tuner.done and tuner.platform.counts()["extractor versions"] == 2


# -- the extract trial ------------------------------------------------------------------------------------------------


def blind_warnings(caplog):
    return [r for r in caplog.records if "ranked without a meta-feature" in r.message]


def test_an_extract_trial_that_does_not_know_the_hook_counts_as_a_pick(lab, caplog):
    tuner = lab.tuner("e", budget=3)
    job = tuner.ask(0)
    tuner.receive_intermediate(0, 0.2)
    tuner.receive_trial_result(0, None, 0.6)
    tuner.trial_end(0, True)
    first = trials_of(tuner)[0]
    assert (first.phase, first.status, first.performance) == ("fine-tune", "succeeded", 0.6)
    assert {"phase": "extract", **first.configuration} == job.parameters
    for parameter_id in (1, 2):  # the budget counts it
        tuner.ask(parameter_id)
        tuner.receive_trial_result(parameter_id, None, 0.5 + 0.1 * parameter_id)
    assert tuner.done, "without a meta-feature there is nothing to learn for the extractor"
    assert len(blind_warnings(caplog)) == 1
    assert tuner.platform.counts()["ranker versions"] == 1, "but the ranker learns"


def test_a_failing_extract_trial_costs_no_pick(lab, caplog):
    tuner = lab.tuner("e", budget=2)
    tuner.ask(0)
    tuner.trial_end(0, False)
    assert not blind_warnings(caplog)
    lab.run(tuner)
    assert len(blind_warnings(caplog)) == 1
    assert task_of(tuner).meta_feature is None and len(trials_of(tuner, "fine-tune")) == 2


GOOD = {"meta_feature": [0.5] * 64, "num_images": 20, "num_boxes": 31, "baseline": 0.25}


@pytest.mark.parametrize(
    "answer, reason",
    [
        (None, "no JSON object"),
        ([], "no JSON object"),
        ({}, "lacks baseline, meta_feature, num_boxes, num_images"),
        (GOOD | {"meta_feature": [0.5] * 63}, "a list of 64 numbers"),
        (GOOD | {"meta_feature": "x" * 64}, "a list of 64 numbers"),
        (GOOD | {"meta_feature": 0.5}, "a list of 64 numbers"),
        (GOOD | {"meta_feature": [[0.5]] * 64}, "finite number"),
        (GOOD | {"meta_feature": [math.nan] + [0.5] * 63}, "finite number"),
        (GOOD | {"meta_feature": [math.inf] + [0.5] * 63}, "finite number"),
        (GOOD | {"meta_feature": [True] * 64}, "finite number"),
        (GOOD | {"meta_feature": [None] * 64}, "finite number"),
        (GOOD | {"meta_feature": [10**400] + [0] * 63}, "finite number"),
        (GOOD | {"meta_feature": [10**300] + [0] * 63}, "finite number"),
        (GOOD | {"meta_feature": [1e4] * 64}, "its length exceeds 10000"),
        (GOOD | {"num_images": -1}, "num_images: -1"),
        (GOOD | {"num_images": 2.5}, "num_images: 2.5"),
        (GOOD | {"num_boxes": True}, "num_boxes: True"),
        (GOOD | {"num_boxes": "31"}, "num_boxes: '31'"),
        (GOOD | {"num_boxes": 2**60}, "num_boxes"),
        (GOOD | {"baseline": 1.01}, "baseline: 1.01"),
        (GOOD | {"baseline": -0.1}, "baseline: -0.1"),
        (GOOD | {"baseline": math.nan}, "baseline: nan"),
        (GOOD | {"baseline": None}, "baseline: None"),
    ],
    ids=lambda value: repr(value)[-40:],
)
def test_an_untrusted_description_is_refused_and_the_task_goes_on_without(lab, answer, reason):
    tuner = lab.tuner("e", budget=1)
    tuner.ask(0)
    tuner.receive_intermediate(0, {"default": 0.2, "hyperfd": answer})
    extract = trials_of(tuner, "extract")[0]
    assert extract.status == "failed" and reason in extract.reason
    assert task_of(tuner).meta_feature is None
    tuner.receive_trial_result(0, None, {"default": 0.2, "phase": "extract"})
    tuner.trial_end(0, True)
    assert trials_of(tuner, "extract")[0].status == "failed"
    lab.step(tuner)
    assert tuner.done


def test_a_description_of_the_extremes_is_taken(lab):
    tuner = lab.tuner("e", budget=1)
    tuner.ask(0)
    extreme = {"meta_feature": [0] * 64, "num_images": 0, "num_boxes": 0, "baseline": 1, "seconds": 3, "more": None}
    tuner.receive_intermediate(0, {"default": 1, "hyperfd": extreme})
    assert task_of(tuner).meta_feature == [0.0] * 64 and task_of(tuner).baseline == 1.0


def test_an_answer_of_an_ordinary_trial_is_not_listened_to(lab):
    tuner = extracted(lab, lab.tuner("e", budget=1))
    described = task_of(tuner).meta_feature
    tuner.ask(1)
    tuner.receive_intermediate(1, {"default": 0.2, "hyperfd": GOOD})
    assert task_of(tuner).meta_feature == described
    assert trials_of(tuner, "fine-tune")[0].status == "running"


# -- the learn trial --------------------------------------------------------------------------------------------------


def repacked(answer, change):
    tensors = weights.loads(weights.from_text(answer["update"]))
    change(tensors)
    return answer | {"update": weights.to_text(safetensors.torch.save(tensors))}


def changed(name, tensor):
    return lambda answer: repacked(answer, lambda tensors: tensors.update({name: tensor}))


def without(name):
    return lambda answer: repacked(answer, lambda tensors: tensors.pop(name))


def scaled(factor):
    def change(tensors):
        for name in tensors:
            tensors[name] = tensors[name] * factor

    return lambda answer: repacked(answer, change)


def another_width(hidden):
    def change(tensors):
        for name, tensor in MetaFeatureExtractor.initial(12, seed=0, hidden=hidden).state_dict().items():
            tensors |= {f"extractor.{name}": tensor, f"importance.{name}": torch.zeros_like(tensor)}

    return lambda answer: repacked(answer, change)


BAD_UPDATES = {
    "nothing": lambda answer: None,
    "a list": lambda answer: [answer],
    "no update": lambda answer: {"meta_feature": answer["meta_feature"]},
    "no meta-feature": lambda answer: {"update": answer["update"]},
    "update is a number": lambda answer: answer | {"update": 7},
    "not base64": lambda answer: answer | {"update": "%%%"},
    "not ascii": lambda answer: answer | {"update": "ä" * 8},
    "not safetensors": lambda answer: answer | {"update": weights.to_text(b"x" * 999)},
    "cut short": lambda answer: answer | {"update": answer["update"][: len(answer["update"]) // 8 * 4]},
    "too large": lambda answer: answer | {"update": weights.to_text(bytes(weights.MAX_BYTES + 1))},
    "no tensors": lambda answer: answer | {"update": weights.to_text(weights.dumps({}))},
    "wrong name": changed("extractor.extra", torch.zeros(2)),
    "missing name": without("extractor.image.bias"),
    "missing importance": without("importance.image.weight"),
    "wrong shape": changed("extractor.image.weight", torch.zeros(2, 2)),
    "wrong shape of the importance": changed("importance.image.bias", torch.zeros(63)),
    "negative importance": changed("importance.image.bias", torch.full((64,), -1e-3)),
    "NaN": changed("extractor.image.bias", torch.full((64,), math.nan)),
    "infinite importance": changed("importance.image.bias", torch.full((64,), math.inf)),
    "float64": changed("extractor.image.bias", torch.zeros(64, dtype=torch.float64)),
    "huge": scaled(1e20),
    "wider meta-features": another_width(128),
    "narrower meta-features": another_width(32),
    "short meta-feature": lambda answer: answer | {"meta_feature": [0.0] * 63},
    "NaN meta-feature": lambda answer: answer | {"meta_feature": [math.nan] * 64},
    "long meta-feature": lambda answer: answer | {"meta_feature": [1e5] * 64},
}


@pytest.fixture(scope="module")
def about_to_learn(make_lab, tmp_path_factory):
    """A state whose only task waits for the answer of its learn trial, and the honest answer."""
    with pytest.MonkeyPatch.context() as patch:
        lab = make_lab(tmp_path_factory.mktemp("learn"), patch)
        tuner = lab.tuner("e", budget=2)
        job, parameter_id = ready_to_learn(lab, tuner)
        answer = good_answer(lab, job)
        return lab.content(), answer, parameter_id


@pytest.mark.parametrize("bad", BAD_UPDATES)
def test_an_untrusted_update_is_refused_and_the_task_closes_with_its_experience(lab, about_to_learn, bad):
    content, answer, parameter_id = about_to_learn
    lab.state.write_bytes(content)
    tuner = lab.tuner("e", budget=2)
    described = task_of(tuner).meta_feature
    tuner.receive_intermediate(parameter_id, {"default": 0.1, "hyperfd": BAD_UPDATES[bad](answer)})
    (learn,) = trials_of(tuner, "learn")
    assert learn.status == "failed" and learn.reason
    assert tuner.done
    assert task_of(tuner).meta_feature == described
    counts = tuner.platform.counts()
    assert counts["extractor versions"] == 1, "the update is not kept"
    assert counts["ranker versions"] == 1, "the experience is"
    tuner.receive_intermediate(parameter_id, {"default": 0.1, "hyperfd": answer})
    tuner.trial_end(parameter_id, True)
    assert tuner.platform.counts() == counts, "a second answer comes too late"


def test_the_honest_update_is_taken(lab, about_to_learn):
    content, answer, parameter_id = about_to_learn
    lab.state.write_bytes(content)
    tuner = lab.tuner("e", budget=2)
    tuner.receive_intermediate(parameter_id, {"default": 0.1, "hyperfd": answer | {"more": "is ignored"}})
    assert tuner.done and task_of(tuner).meta_feature == answer["meta_feature"]
    assert tuner.platform.counts()["extractor versions"] == 2


def test_a_learn_trial_that_does_not_know_the_hook_or_fails_closes_the_task(lab, about_to_learn):
    content, _, parameter_id = about_to_learn
    for end in (
        lambda tuner: tuner.trial_end(parameter_id, False),
        lambda tuner: tuner.receive_trial_result(parameter_id, None, 0.99),
    ):
        lab.state.write_bytes(content)
        tuner = lab.tuner("e", budget=2)
        end(tuner)
        assert tuner.done
        assert len(task_of(tuner).trials) == 4
        assert 0.99 not in [t.performance for t in trials_of(tuner, "fine-tune")]
        tuner.platform.store.close()


def test_two_tasks_open_at_once_the_second_update_is_kept_but_is_not_the_newest(lab, caplog):
    first = lab.tuner("first", budget=2)
    second = lab.tuner("second", budget=2)
    lab.run(first)
    head = first.platform.counts()["extractor versions"]
    assert "nother experiment has updated the extractor" not in caplog.text
    lab.run(second, lab.dataset(2))
    assert "nother experiment has updated the extractor" in caplog.text
    assert second.platform.counts()["extractor versions"] == head + 1
    third = lab.tuner("third", budget=2)
    tasks = third.platform.tasks()
    assert [t.extractor_id for t in tasks] == [2, 3, 2], "the third task starts from the first's version"
    given = third.ask(0).service["weights"]
    assert weights.from_text(given) == third.platform.extractor_weights(tasks[0].id)
    assert tasks[0].meta_feature != tasks[1].meta_feature


# -- imported results -------------------------------------------------------------------------------------------------


def imported(tuner):
    return {json.dumps(t.configuration): t.performance for t in trials_of(tuner, "import")}


def entry(value, **parameter):
    return {"parameter": {"kind": "a", "x": 0.5, "y": 1} | parameter, "value": value}


def test_usable_imported_entries_become_experience_and_others_are_left_out_with_a_warning(lab, caplog):
    tuner = lab.tuner("e", budget=2)
    unusable = [
        entry(math.nan),
        entry("0.7"),
        entry(None),
        entry(True),
        entry({"loss": 0.7}),
        entry(0.7, kind="z"),
        entry(0.7, extra=1),
        {"parameter": {"kind": "a"}, "value": 0.7},
        {"parameter": "x", "value": 0.7},
        {"parameter": {"kind": "a", "x": 0.5, "y": 1}},
        {"value": 0.7},
        {},
        None,
        "text",
    ]
    with caplog.at_level(logging.WARNING):
        tuner.import_data([entry(0.7), *unusable, entry({"default": 0.8}, x=0), entry(1, y=2.0)])
    assert len([r for r in caplog.records if "is left out" in r.message]) == len(unusable)
    assert imported(tuner) == {
        '{"kind": "a", "x": 0.5, "y": 1}': 0.7,
        '{"kind": "a", "x": 0.0, "y": 1}': 0.8,
        '{"kind": "a", "x": 0.5, "y": 2}': 1.0,
    }
    lab.run(tuner)
    tried = [t.configuration for t in trials_of(tuner, "fine-tune")]
    assert len(tried) == 2, "on top of the budget"
    assert all(json.dumps(c) not in imported(tuner) for c in tried), "what is known is not tried again"


def test_a_duplicate_is_kept_once_and_a_repetition_with_another_result_twice(lab):
    tuner = lab.tuner("e")
    tuner.import_data([entry(0.7), entry(0.7), entry(0.6)])
    tuner.import_data([entry(0.7)])
    assert [t.performance for t in trials_of(tuner, "import")] == [0.7, 0.6]


def test_an_imported_result_of_a_running_pick_is_its_result(lab):
    tuner = extracted(lab, lab.tuner("e", budget=2))
    job = tuner.ask(1)
    tuner.import_data([{"parameter": job.parameters, "value": 0.7}])
    first = trials_of(tuner, "fine-tune")[0]
    assert (first.status, first.performance) == ("succeeded", 0.7)
    assert trials_of(tuner, "import") == []
    tuner.receive_trial_result(1, None, 0.9)
    assert trials_of(tuner, "fine-tune")[0].performance == 0.7


def test_results_of_service_trials_are_no_experience(lab):
    tuner = lab.tuner("e")
    data = [
        {
            "parameter": {"phase": "extract", "kind": "a", "x": 0.5, "y": 1},
            "value": {"default": 0.2, "phase": "extract"},
        },
        {"parameter": {"phase": "learn"}, "value": {"default": 0.2, "phase": "learn"}},
    ]
    tuner.import_data(data)
    assert [t.status for t in trials_of(tuner)] == ["planned"]


# -- resume -----------------------------------------------------------------------------------------------------------


def test_a_resumed_experiment_goes_on_and_plans_anew_only_what_was_lost(lab):
    tuner = extracted(lab, lab.tuner("e", budget=4))
    jobs = {i: tuner.ask(i).parameters for i in (1, 2, 3)}
    tuner.receive_trial_result(1, None, 0.61)
    tuner.platform.store.close()

    again = lab.tuner("e", budget=4)
    assert again.task_id == tuner.task_id and task_of(again).meta_feature is not None
    again.import_data(
        [
            {"parameter": task_of(again).trials[0].configuration | {"phase": "extract"}, "value": {"phase": "extract"}},
            {"parameter": jobs[1], "value": 0.61},
        ]
    )
    assert len(trials_of(again)) == 4, "nothing twice"
    again.release({3})
    assert again.next_parameter_id() > 3
    status = {t.parameter_id: t.status for t in trials_of(again, "fine-tune")}
    assert (status[1], status[2], status[3]) == ("succeeded", "planned", "running")
    next_id = again.next_parameter_id()
    assert again.ask(next_id).parameters == jobs[2]
    assert again.next_parameter_id() > next_id
    again.receive_trial_result(3, None, 0.63)
    again.receive_trial_result(next_id, None, 0.62)
    lab.run(again)
    assert {0.61, 0.62, 0.63} <= {t.performance for t in trials_of(again, "fine-tune")}
    assert len(trials_of(again, "fine-tune")) == 4
    ids = [t.parameter_id for t in trials_of(again)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("phase", ["extract", "learn"])
def test_a_service_trial_that_was_lost_is_sent_again(lab, phase):
    tuner = lab.tuner("e", budget=1)
    if phase == "learn":
        ready_to_learn(lab, tuner)
    else:
        tuner.ask(0)
    again = lab.tuner("e", budget=1)
    again.release(set())
    lab.run(again)
    assert [t.phase for t in trials_of(again)] == ["extract", "fine-tune", "learn"]
    assert {t.status for t in trials_of(again)} == {"succeeded"}


def test_a_closed_task_stays_closed_after_a_resume(lab):
    tuner = lab.tuner("e", budget=1)
    lab.run(tuner)
    counts = tuner.platform.counts()
    again = lab.tuner("e", budget=1)
    again.import_data([{"parameter": t.configuration, "value": t.performance} for t in trials_of(tuner, "fine-tune")])
    again.release(set())
    assert again.done and again.ask(again.next_parameter_id()) is None
    assert again.platform.counts() == counts


def test_a_resumed_experiment_with_another_search_space_is_refused(lab):
    lab.tuner("e")
    with pytest.raises(SpaceError, match="experiment e was begun with another search space"):
        lab.tuner("e", lab.space | {"z": {"_type": "choice", "_value": [1, 2]}})
    # NNI's JSON may have turned 0.0 into 0 on the way.
    whole = lab.space | {"x": {"_type": "choice", "_value": [0, 0.25, 0.5, 0.75, 1]}}
    assert lab.tuner("e", whole).task_id == 1


# -- as a plain tuner -------------------------------------------------------------------------------------------------


def test_as_a_plain_nni_tuner_it_asks_for_no_service_trials(lab):
    lab.experiment("plain")
    tuner = HyperFDTuner(state=str(lab.state), warm_start="none", budget=3)
    tuner.update_search_space(lab.space)
    parameters = [tuner.generate_parameters(i) for i in range(3)]
    assert all(set(p) == set(lab.space) for p in parameters)
    with pytest.raises(NoMoreTrialError, match="budget of 3"):
        tuner.generate_parameters(3)
    for i, p in enumerate(parameters):
        tuner.receive_trial_result(i, p, {"default": lab.score(p)}, customized=False, trial_job_id="t")
        tuner.trial_end(i, True)
    assert task_of(tuner).closed is not None
    assert tuner.platform.counts()["ranker versions"] == 1
    assert ServiceTuner.service and not HyperFDTuner.service


def test_as_a_plain_tuner_it_survives_nnis_counting_anew_after_a_resume(lab):
    def plain_tuner():
        lab.experiment("plain")
        tuner = HyperFDTuner(state=str(lab.state), warm_start="none", budget=5)
        tuner.update_search_space(lab.space)
        return tuner

    tuner = plain_tuner()
    parameters = [tuner.generate_parameters(i) for i in range(3)]
    for i in (1, 2):
        tuner.receive_trial_result(i, parameters[i], 0.1 * i)
    again = plain_tuner()
    again.import_data([{"parameter": parameters[i], "value": 0.1 * i} for i in (1, 2)])
    # NNI runs trial 0 again and goes on with 1; the result of trial 0 comes like an imported one.
    parameters += [again.generate_parameters(i) for i in (1, 2)]
    assert len({json.dumps(p) for p in parameters}) == 5
    again.import_data([{"parameter": parameters[0], "value": 0.7}])
    again.receive_trial_result(1, parameters[3], 0.8)
    again.receive_trial_result(2, parameters[4], 0.9)
    assert [t.performance for t in trials_of(again)] == [0.7, 0.1, 0.2, 0.8, 0.9]
    assert task_of(again).closed is not None


# -- classArgs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"budgett": 4}, "budgett: no such argument"),
        ({"state": "state.sqlite"}, "state: 'state.sqlite' must be an absolute path"),
        ({"state": ""}, "state: '' is no file name"),
        ({"state": 3}, "state: 3 is no file name"),
        ({"budget": 0}, "budget: 0"),
        ({"budget": -1}, "budget: -1"),
        ({"budget": 2.0}, "budget: 2.0"),
        ({"budget": "4"}, "budget: '4'"),
        ({"budget": True}, "budget: True"),
        ({"budget": None}, "budget: None"),
        ({"space": "cv"}, "space: 'cv' is none of hpo, nas"),
        ({"candidates": 0}, "candidates: 0"),
        ({"candidates": True}, "candidates: True"),
        ({"candidates": 3, "budget": 4}, "candidates: 3 are fewer than the budget of 4"),
        ({"preset": "best"}, "preset: 'best' is none of default, paper"),
        ({"replay": True}, "replay: True is none of none, meta-features"),
        ({"exploration": 0.5}, "exploration: this belongs to preset: paper"),
        ({"preset": "paper", "exploration": 1.1}, "exploration: 1.1"),
        ({"preset": "paper", "exploration": -0.1}, "exploration: -0.1"),
        ({"preset": "paper", "exploration": math.nan}, "exploration: nan"),
        ({"preset": "paper", "exploration": True}, "exploration: True"),
        ({"preset": "paper", "exploration": "half"}, "exploration: 'half'"),
        ({"seed": -1}, "seed: -1"),
        ({"seed": 1.5}, "seed: 1.5"),
        ({"seed": True}, "seed: True"),
        ({"seed": 2**32}, "seed: 4294967296"),
        ({"optimize_mode": "max"}, "optimize_mode: 'max' is none of maximize, minimize"),
    ],
    ids=str,
)
def test_wrong_class_args_are_named_and_no_state_is_made(lab, arguments, message):
    with pytest.raises(ClassArgsError, match="^classArgs: ") as error:
        ServiceTuner(**{"state": str(lab.state), **arguments})
    assert message in str(error.value)
    assert not lab.state.exists()


def test_the_extremes_of_class_args_are_taken(lab):
    tuner = ServiceTuner(
        state=str(lab.state),
        warm_start="none",
        budget=1,
        space="hpo",
        candidates=1,
        preset="paper",
        exploration=1,
        seed=2**32 - 1,
        optimize_mode="minimize",
    )
    tuner.update_search_space(lab.space)
    lab.run(tuner)
    assert task_of(tuner).space.kind == "hpo"
    assert task_of(tuner).settings["maximize"] is False


def test_the_state_may_be_named_from_the_home_folder_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    ServiceTuner(state="~/of mine/state.sqlite")
    assert Path(tmp_path, "of mine", "state.sqlite").is_file()
    ServiceTuner()
    assert [path.name for path in tmp_path.glob("data/nni_hyperfd/*.sqlite")] == ["state.sqlite"]


def test_a_state_that_cannot_be_used_is_said_at_the_start(lab):
    lab.state.write_text("this is no state " * 99)
    with pytest.raises(StateError, match="state.sqlite"):
        ServiceTuner(state=str(lab.state))


@pytest.mark.parametrize("definition", [{}, {"x": {"_type": "normal", "_value": [0, 1]}}])
def test_a_search_space_that_cannot_be_ranked_is_refused(lab, definition):
    with pytest.raises(SpaceError, match="search space"):
        lab.tuner("e", definition)


@pytest.mark.parametrize(("set_by_user", "threads"), [(None, 1), ("2", 2)])
def test_it_learns_on_one_thread_unless_the_user_wants_more(lab, set_by_user, threads):
    code = f"""
import sys
from nni_hyperfd.experiment.tuner import HyperFDTuner
HyperFDTuner(state={str(lab.state)!r})
assert "torch" not in sys.modules
import torch
print(torch.get_num_threads())
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {"OMP_NUM_THREADS": set_by_user} if set_by_user else {}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(threads), done.stderr
