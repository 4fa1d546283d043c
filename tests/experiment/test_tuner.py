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

from nni_hyperfd import wire
from nni_hyperfd.experiment.tuner import ClassArgsError, HyperFDTuner, ServiceTuner
from nni_hyperfd.method import MetaFeatureExtractor, weights
from nni_hyperfd.platform import StateError
from nni_hyperfd.platform.jobs import learn_job
from nni_hyperfd.space import SearchSpace, SpaceError
from nni_hyperfd.task import Phase, Status
from nni_hyperfd.wire import Description, ExtractJob, ExtractorUpdate, LearnJob


def task_of(tuner):
    return tuner.platform.task(tuner.task_id)


def trials_of(tuner, phase=None):
    return [t for t in task_of(tuner).trials if phase in (None, t.phase)]


def extracted(lab, tuner):
    """The task after its extract trial: the picks are planned."""
    assert isinstance(lab.step(tuner).job, ExtractJob)
    return tuner


def ready_to_learn(lab, tuner):
    """The learn request of the task, running; its parameter id."""
    while not trials_of(tuner, Phase.LEARN):
        lab.step(tuner)
    parameter_id = tuner.next_parameter_id()
    return tuner.ask(parameter_id), parameter_id


def good_answer(lab, request):
    (answer,), final = lab.serve(request)
    assert final == []
    return wire.answer_in(answer)


def answered(message):
    """An intermediate result with a packed answer."""
    return {"default": 0.2, "hyperfd": message}


# -- the whole way of a task ------------------------------------------------------------------------------------------


def test_a_task_goes_from_the_extract_answer_over_its_picks_to_new_versions(lab):
    tuner = lab.tuner("first", budget=3, preset="paper", exploration=0.0)
    assert not tuner.done
    assert task_of(tuner).meta_feature is None
    extract = tuner.ask(0)
    assert isinstance(extract.job, ExtractJob) and not extract.job.may_start_anew
    assert extract.job.extractor == {}, "the initial one, which all clients make alike"
    assert tuner.ask(1) is None, "the picks wait for the meta-feature"

    (answer,), (final,) = lab.serve(extract)
    tuner.receive_intermediate(0, answer)
    tuner.receive_trial_result(0, None, final)
    tuner.trial_end(0, True)
    task, described = task_of(tuner), Description.unpack(wire.answer_in(answer))
    assert task.meta_feature == described.meta_feature
    assert (task.num_images, task.num_boxes, task.baseline) == (20, 31, 0.25)

    requests = [tuner.ask(i) for i in (1, 2, 3)]
    assert all(r.job is None and set(r.configuration) == {"kind", "x", "y"} for r in requests), "all at once"
    assert tuner.ask(4) is None
    picks = trials_of(tuner, Phase.FINE_TUNE)
    assert [p.rank for p in picks] == [1, 2, 3] and picks[0].score >= picks[1].score >= picks[2].score
    for i, request in enumerate(requests, start=1):
        assert tuner.ask(4) is None
        tuner.receive_intermediate(i, 0.3)
        tuner.receive_trial_result(i, None, {"default": lab.score(request.configuration), "note": "kept by NNI"})
        tuner.trial_end(i, True)

    learn = tuner.ask(4)
    assert learn.configuration == {} and isinstance(learn.job, LearnJob)
    scores = [lab.score(request.configuration) for request in requests]
    assert learn.job.performance.tolist() == pytest.approx(scores) and learn.job.embeddings.shape == (3, 64)
    assert not tuner.done and tuner.platform.counts()["extractor versions"] == 1
    (answer,), final = lab.serve(learn)
    assert final == [], "NNI would take it for an AP"
    tuner.receive_intermediate(4, answer)
    tuner.trial_end(4, True)

    assert tuner.done and tuner.ask(5) is None
    counts = tuner.platform.counts()
    assert (counts["extractor versions"], counts["encoder versions"]) == (2, 1)
    task, update = task_of(tuner), ExtractorUpdate.unpack(wire.answer_in(answer))
    assert task.meta_feature == update.meta_feature != described.meta_feature
    assert {t.status for t in task.trials} == {Status.SUCCEEDED}

    # The next data set starts from there.
    second = lab.tuner("second", budget=2, preset="paper")
    request, data = second.ask(0), lab.dataset(2)
    assert weights.dumps(request.job.extractor) == weights.dumps(update.extractor)
    (answer,), _ = lab.serve(request, data)
    images = data.image_features(20, 0)
    expected = MetaFeatureExtractor.from_weights(update.extractor)(images).tolist()
    got = Description.unpack(wire.answer_in(answer)).meta_feature
    assert got == pytest.approx(expected, abs=1e-5)
    initial = MetaFeatureExtractor.initial(12, seed=0)(images).tolist()
    assert max(abs(a - b) for a, b in zip(got, initial, strict=True)) > 1e-3
    second.release(set())
    lab.run(second, data)
    after_second = second.platform.counts()
    assert after_second["extractor versions"] == 3 and after_second["encoder versions"] == 2


def test_the_seed_of_the_class_args_reaches_the_learn_job(lab):
    def job(name, **class_args):
        return ready_to_learn(lab, lab.tuner(name, budget=1, preset="paper", **class_args))[0].job

    assert [job("a").seed, job("b").seed] == [1, 2], "each task has its own"
    assert job("c", seed=100).seed == 103
    assert job("d", seed=2**32 - 1).seed == 3


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
    picks = trials_of(tuner, Phase.FINE_TUNE)
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
        assert tuner.done
        performance = learn_job(tuner.platform, tuner.task_id).performance
        assert sorted(performance.tolist()) == pytest.approx([-0.9, -0.5, -0.1])
    assert {t.performance for t in trials_of(tuner, Phase.FINE_TUNE)} == {0.1, 0.5, 0.9}
    ranking = tuner.platform.rank(SearchSpace.from_nni(small), None, tuner.settings)
    assert ranking.recommendations[0].configuration == {"kind": "a"}


def test_a_space_smaller_than_the_budget_is_tried_in_full_and_then_learned_from(lab):
    tuner = lab.tuner("e", {"kind": lab.space["kind"]}, budget=10, preset="paper")

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
    (pick,) = trials_of(tuner, Phase.FINE_TUNE)
    assert (pick.status, pick.performance) == ("failed", None)
    assert "instead of a finite number" in pick.reason
    assert tuner.ask(2) is None and tuner.done, "the budget is spent all the same"


@pytest.mark.parametrize("value, kept", [(0.5, 0.5), (1, 1.0), ({"default": 0.25, "loss": "x"}, 0.25), (-3, -3.0)])
def test_numbers_and_dicts_with_a_default_are_results(lab, value, kept):
    tuner = extracted(lab, lab.tuner("e", budget=1))
    tuner.ask(1)
    tuner.receive_trial_result(1, None, value)
    (pick,) = trials_of(tuner, Phase.FINE_TUNE)
    assert (pick.status, pick.performance) == ("succeeded", kept)


def test_the_first_of_two_finals_stands_and_a_late_result_replaces_a_failure(lab):
    tuner = extracted(lab, lab.tuner("e", budget=2))
    tuner.ask(1), tuner.ask(2)
    tuner.receive_trial_result(1, None, 0.5)
    tuner.receive_trial_result(1, None, 0.9)
    tuner.receive_trial_result(1, None, math.nan)
    tuner.trial_end(1, False)
    tuner.trial_end(2, False)
    first, second = trials_of(tuner, Phase.FINE_TUNE)
    assert (first.status, first.performance) == ("succeeded", 0.5)
    assert (second.status, second.reason) == ("failed", "failed")
    tuner.receive_trial_result(2, None, 0.7)
    assert trials_of(tuner, Phase.FINE_TUNE)[1].performance == 0.7
    assert trials_of(tuner, Phase.FINE_TUNE)[1].reason is None


def test_a_trial_that_ends_without_a_result_has_failed(lab):
    tuner = extracted(lab, lab.tuner("e", budget=1))
    tuner.ask(1)
    tuner.trial_end(1, True)
    assert trials_of(tuner, Phase.FINE_TUNE)[0].reason == "ended without reporting a result"


def test_unknown_parameter_ids_are_ignored_with_a_warning(lab, caplog):
    tuner = extracted(lab, lab.tuner("e", budget=1))
    before = [(t.status, t.performance) for t in trials_of(tuner)]
    tuner.receive_trial_result(77, None, 0.5)
    assert "no trial with parameter id 77" in caplog.text
    tuner.receive_intermediate(78, answered({}))
    tuner.trial_end(79, True)
    assert [(t.status, t.performance) for t in trials_of(tuner)] == before


def test_all_trials_failing_still_closes_the_task(lab):
    tuner = lab.tuner("e", budget=2)
    for parameter_id in range(3):
        assert tuner.ask(parameter_id) is not None
        tuner.trial_end(parameter_id, False)
    assert tuner.done
    assert tuner.platform.counts()["encoder versions"] == 0, "nothing to learn from"


def test_a_task_without_any_result_is_forgotten_and_one_with_a_result_is_not(lab):
    tuner = extracted(lab, lab.tuner("e", budget=1))
    assert not tuner.is_describing(0)
    tuner.ask(1)
    tuner.trial_end(1, False)
    assert tuner.done and not tuner.has_results
    tuner.forget()
    assert tuner.platform.tasks() == []
    again = lab.tuner("e", budget=1)
    again.ask(0)
    assert again.is_describing(0)
    lab.run(extracted(lab, lab.tuner("f", budget=1)))
    other = lab.tuner("f", budget=1)
    other.forget()
    assert [task.experiment for task in other.platform.tasks()] == ["e", "f"]


def test_with_every_pick_failing_the_learn_job_is_still_sound(lab):
    tuner = extracted(lab, lab.tuner("e", budget=2, preset="paper"))
    for parameter_id in (1, 2):
        tuner.ask(parameter_id)
        tuner.trial_end(parameter_id, False)
    request = tuner.ask(3)
    assert request.job.embeddings.shape == (0, 64)
    tuner.receive_intermediate(3, answered(good_answer(lab, request)))
    assert tuner.done and tuner.platform.counts()["extractor versions"] == 2


# -- the extract trial ------------------------------------------------------------------------------------------------


def blind_warnings(caplog):
    return [r for r in caplog.records if "ranked without a meta-feature" in r.message]


def test_an_extract_trial_that_does_not_know_the_hook_counts_as_a_pick(lab, caplog):
    tuner = lab.tuner("e", budget=3)
    configuration = tuner.ask(0).configuration
    tuner.receive_intermediate(0, 0.2)
    tuner.receive_trial_result(0, None, 0.6)
    tuner.trial_end(0, True)
    first = trials_of(tuner)[0]
    assert (first.phase, first.status, first.performance) == ("fine-tune", "succeeded", 0.6)
    assert first.configuration == configuration
    for parameter_id in (1, 2):  # the budget counts it
        tuner.ask(parameter_id)
        tuner.receive_trial_result(parameter_id, None, 0.5 + 0.1 * parameter_id)
    assert tuner.done, "without a meta-feature there is nothing to learn for the extractor"
    assert len(blind_warnings(caplog)) == 1
    assert tuner.platform.counts()["encoder versions"] == 1, "but the ranker learns"


def test_a_failing_extract_trial_costs_no_pick(lab, caplog):
    tuner = lab.tuner("e", budget=2)
    tuner.ask(0)
    tuner.trial_end(0, False)
    assert not blind_warnings(caplog)
    lab.run(tuner)
    assert len(blind_warnings(caplog)) == 1
    assert task_of(tuner).meta_feature is None and len(trials_of(tuner, Phase.FINE_TUNE)) == 2


def test_a_meta_feature_that_the_owner_withholds_is_no_forgotten_one(lab, caplog):
    tuner = lab.tuner("e", budget=1)
    tuner.ask(0)
    tuner.receive_intermediate(0, wire.intermediate_result(Description(None, None, None, 0.5, withheld="few")))
    lab.run(tuner)
    assert not blind_warnings(caplog) and "it has fewer images than its owner's minimum" in caplog.text


GOOD = Description([0.5] * 64, 20, 31, 0.25).pack()


@pytest.mark.parametrize(
    "answer, reason",
    [
        ([], "no JSON object"),
        ({}, "has version None of the protocol"),
        (GOOD | {"version": 1}, "has version 1 of the protocol, this side speaks 2"),
        (GOOD | {"phase": "learn"}, "phase 'learn', 'extract' was expected"),
        (GOOD | {"more": 1}, "must not hold 'more'"),
        (GOOD | {"meta_feature": [math.nan] + [0.5] * 63}, "finite number"),
        (GOOD | {"meta_feature": [1e4] * 64}, "its length exceeds 10000"),
        (GOOD | {"num_images": -1}, "num_images: -1"),
        (GOOD | {"baseline": 1.01}, "baseline: 1.01"),
    ],
    ids=lambda value: repr(value)[-40:],
)
def test_an_untrusted_description_is_refused_and_the_task_goes_on_without(lab, answer, reason):
    """What else is refused is in tests/test_wire.py."""
    tuner = lab.tuner("e", budget=1)
    tuner.ask(0)
    tuner.receive_intermediate(0, answered(answer))
    extract = trials_of(tuner, Phase.EXTRACT)[0]
    assert extract.status is Status.FAILED and reason in extract.reason
    assert task_of(tuner).meta_feature is None
    tuner.receive_trial_result(0, None, {"default": 0.2, "phase": "extract"})
    tuner.trial_end(0, True)
    assert trials_of(tuner, Phase.EXTRACT)[0].status is Status.FAILED
    lab.step(tuner)
    assert tuner.done


def test_a_description_of_the_extremes_is_taken(lab):
    tuner = lab.tuner("e", budget=1)
    tuner.ask(0)
    tuner.receive_intermediate(0, wire.intermediate_result(Description([0] * 64, 0, 0, 1, seconds=3)))
    assert task_of(tuner).meta_feature == (0.0,) * 64 and task_of(tuner).baseline == 1.0


def test_an_intermediate_result_without_an_answer_is_a_point_of_nnis_curve(lab):
    tuner = lab.tuner("e", budget=1)
    tuner.ask(0)
    for value in (0.5, None, "text", {"default": 0.5}, [], answered(None)):
        tuner.receive_intermediate(0, value)
    assert trials_of(tuner, Phase.EXTRACT)[0].status is Status.RUNNING


def test_an_answer_of_an_ordinary_trial_is_not_listened_to(lab):
    tuner = extracted(lab, lab.tuner("e", budget=1))
    described = task_of(tuner).meta_feature
    tuner.ask(1)
    tuner.receive_intermediate(1, answered(GOOD))
    assert task_of(tuner).meta_feature == described
    assert trials_of(tuner, Phase.FINE_TUNE)[0].status is Status.RUNNING


# -- the learn trial --------------------------------------------------------------------------------------------------


def repacked(change):
    """An answer whose tensors have been changed, with the sha256 that belongs to them."""

    def changed(answer):
        tensors = weights.loads(weights.from_text(answer["tensors"]))
        change(tensors)
        data = safetensors.torch.save(tensors)
        return answer | {"tensors": weights.to_text(data), "sha256": weights.sha256(data)}

    return changed


def put(name, tensor):
    return repacked(lambda tensors: tensors.update({name: tensor}))


def another_width(hidden):
    def change(tensors):
        for name, tensor in MetaFeatureExtractor.initial(12, seed=0, hidden=hidden).state_dict().items():
            tensors |= {f"extractor.{name}": tensor, f"importance.{name}": torch.zeros_like(tensor)}

    return repacked(change)


BAD_UPDATES = {
    "a list": lambda answer: [answer],
    "a description": lambda answer: GOOD,
    "another version": lambda answer: answer | {"version": 1},
    "no meta-feature": lambda answer: {name: answer[name] for name in answer if name != "meta_feature"},
    "damaged": lambda answer: answer | {"sha256": 64 * "0"},
    "no tensors": repacked(lambda tensors: tensors.clear()),
    "wrong name": put("extractor.extra", torch.zeros(2)),
    "missing name": repacked(lambda tensors: tensors.pop("extractor.image.bias")),
    "missing importance": repacked(lambda tensors: tensors.pop("importance.image.weight")),
    "wrong shape": put("extractor.image.weight", torch.zeros(2, 2)),
    "no entries": put("extractor.image.bias", torch.zeros(0)),
    "wrong shape of the importance": put("importance.image.bias", torch.zeros(63)),
    "negative importance": put("importance.image.bias", torch.full((64,), -1e-3)),
    "NaN": put("extractor.image.bias", torch.full((64,), math.nan)),
    "infinite importance": put("importance.image.bias", torch.full((64,), math.inf)),
    "float64": put("extractor.image.bias", torch.zeros(64, dtype=torch.float64)),
    "huge": put("extractor.image.bias", torch.full((64,), 1e20)),
    "wider meta-features": another_width(128),
    "narrower meta-features": another_width(32),
    "short meta-feature": lambda answer: answer | {"meta_feature": [0.0] * 63},
    "long meta-feature": lambda answer: answer | {"meta_feature": [1e5] * 64},
}
"""What else is refused is in tests/test_wire.py."""


@pytest.fixture(scope="module")
def about_to_learn(make_lab, tmp_path_factory):
    """A state whose only task waits for the answer of its learn trial, and the honest answer."""
    with pytest.MonkeyPatch.context() as patch:
        lab = make_lab(tmp_path_factory.mktemp("learn"), patch)
        tuner = lab.tuner("e", budget=2, preset="paper")
        request, parameter_id = ready_to_learn(lab, tuner)
        answer = good_answer(lab, request)
        return lab.content(), answer, parameter_id


@pytest.mark.parametrize("bad", BAD_UPDATES)
def test_an_untrusted_update_is_refused_and_the_task_closes_with_its_experience(lab, about_to_learn, bad):
    content, answer, parameter_id = about_to_learn
    lab.state.write_bytes(content)
    tuner = lab.tuner("e", budget=2, preset="paper")
    described = task_of(tuner).meta_feature
    tuner.receive_intermediate(parameter_id, answered(BAD_UPDATES[bad](answer)))
    (learn,) = trials_of(tuner, Phase.LEARN)
    assert learn.status is Status.FAILED and learn.reason
    assert tuner.done
    assert task_of(tuner).meta_feature == described
    counts = tuner.platform.counts()
    assert counts["extractor versions"] == 1, "the update is not kept"
    assert counts["encoder versions"] == 1, "the experience is"
    tuner.receive_intermediate(parameter_id, answered(answer))
    tuner.trial_end(parameter_id, True)
    assert tuner.platform.counts() == counts, "a second answer comes too late"


def test_the_honest_update_is_taken(lab, about_to_learn):
    content, answer, parameter_id = about_to_learn
    lab.state.write_bytes(content)
    tuner = lab.tuner("e", budget=2, preset="paper")
    tuner.receive_intermediate(parameter_id, answered(answer))
    assert tuner.done and task_of(tuner).meta_feature == tuple(answer["meta_feature"])
    assert tuner.platform.counts()["extractor versions"] == 2


def test_a_learn_trial_that_does_not_know_the_hook_or_fails_closes_the_task(lab, about_to_learn):
    content, _, parameter_id = about_to_learn
    for end in (
        lambda tuner: tuner.trial_end(parameter_id, False),
        lambda tuner: tuner.receive_trial_result(parameter_id, None, 0.99),
    ):
        lab.state.write_bytes(content)
        tuner = lab.tuner("e", budget=2, preset="paper")
        end(tuner)
        assert tuner.done
        assert len(task_of(tuner).trials) == 4
        assert 0.99 not in [t.performance for t in trials_of(tuner, Phase.FINE_TUNE)]
        tuner.platform.store.close()


def test_two_tasks_open_at_once_the_second_update_is_kept_but_is_not_the_newest(lab, caplog):
    first = lab.tuner("first", budget=2, preset="paper")
    second = lab.tuner("second", budget=2, preset="paper")
    lab.run(first)
    head = first.platform.counts()["extractor versions"]
    assert "nother experiment has updated the extractor" not in caplog.text
    lab.run(second, lab.dataset(2))
    assert "nother experiment has updated the extractor" in caplog.text
    assert second.platform.counts()["extractor versions"] == head + 1
    third = lab.tuner("third", budget=2)
    tasks = third.platform.tasks()
    assert [t.extractor_id for t in tasks] == [2, 3, 2], "the third task starts from the first's version"
    given, _ = third.platform.versions.tensors(tasks[0].extractor_id)
    assert weights.dumps(third.ask(0).job.extractor) == weights.dumps(given)
    assert tasks[0].meta_feature != tasks[1].meta_feature


# -- imported results -------------------------------------------------------------------------------------------------


def imported(tuner):
    return {json.dumps(t.configuration): t.performance for t in trials_of(tuner, Phase.IMPORT)}


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
    tried = [t.configuration for t in trials_of(tuner, Phase.FINE_TUNE)]
    assert len(tried) == 2, "on top of the budget"
    assert all(json.dumps(c) not in imported(tuner) for c in tried), "what is known is not tried again"


def test_a_duplicate_is_kept_once_and_a_repetition_with_another_result_twice(lab):
    tuner = lab.tuner("e")
    tuner.import_data([entry(0.7), entry(0.7), entry(0.6)])
    tuner.import_data([entry(0.7)])
    assert [t.performance for t in trials_of(tuner, Phase.IMPORT)] == [0.7, 0.6]


def test_an_imported_result_of_a_running_pick_is_its_result(lab):
    tuner = extracted(lab, lab.tuner("e", budget=2))
    request = tuner.ask(1)
    tuner.import_data([{"parameter": request.configuration, "value": 0.7}])
    first = trials_of(tuner, Phase.FINE_TUNE)[0]
    assert (first.status, first.performance) == ("succeeded", 0.7)
    assert trials_of(tuner, Phase.IMPORT) == []
    tuner.receive_trial_result(1, None, 0.9)
    assert trials_of(tuner, Phase.FINE_TUNE)[0].performance == 0.7


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
    tried = {i: tuner.ask(i).configuration for i in (1, 2, 3)}
    tuner.receive_trial_result(1, None, 0.61)
    tuner.platform.store.close()

    again = lab.tuner("e", budget=4)
    assert again.task_id == tuner.task_id and task_of(again).meta_feature is not None
    again.import_data(
        [
            {"parameter": task_of(again).trials[0].configuration | {"phase": "extract"}, "value": {"phase": "extract"}},
            {"parameter": tried[1], "value": 0.61},
        ]
    )
    assert len(trials_of(again)) == 4, "nothing twice"
    again.release({3})
    assert again.next_parameter_id() > 3
    status = {t.parameter_id: t.status for t in trials_of(again, Phase.FINE_TUNE)}
    assert (status[1], status[2], status[3]) == ("succeeded", "planned", "running")
    next_id = again.next_parameter_id()
    assert again.ask(next_id).configuration == tried[2]
    assert again.next_parameter_id() > next_id
    again.receive_trial_result(3, None, 0.63)
    again.receive_trial_result(next_id, None, 0.62)
    lab.run(again)
    assert {0.61, 0.62, 0.63} <= {t.performance for t in trials_of(again, Phase.FINE_TUNE)}
    assert len(trials_of(again, Phase.FINE_TUNE)) == 4
    ids = [t.parameter_id for t in trials_of(again)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("phase", ["extract", "learn"])
def test_a_service_trial_that_was_lost_is_sent_again(lab, phase):
    tuner = lab.tuner("e", budget=1, preset="paper")
    if phase == "learn":
        ready_to_learn(lab, tuner)
    else:
        tuner.ask(0)
    again = lab.tuner("e", budget=1, preset="paper")
    again.release(set())
    lab.run(again)
    assert [t.phase for t in trials_of(again)] == ["extract", "fine-tune", "learn"]
    assert {t.status for t in trials_of(again)} == {"succeeded"}


def test_a_closed_task_stays_closed_after_a_resume(lab):
    tuner = lab.tuner("e", budget=1)
    lab.run(tuner)
    counts = tuner.platform.counts()
    again = lab.tuner("e", budget=1)
    again.import_data(
        [{"parameter": t.configuration, "value": t.performance} for t in trials_of(tuner, Phase.FINE_TUNE)]
    )
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
    assert tuner.platform.counts()["encoder versions"] == 1
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


def test_wrong_class_args_end_the_start_before_any_state_is_made(lab):
    with pytest.raises(ClassArgsError, match="^classArgs: budget: 0 is no whole number"):
        ServiceTuner(state=str(lab.state), budget=0)
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
    assert task_of(tuner).settings == tuner.settings and not tuner.settings.maximize
    assert (tuner.settings.exploration, tuner.settings.seed) == (1.0, 2**32 - 1)


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


@pytest.mark.slow
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
