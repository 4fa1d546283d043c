"""What follows in a task, for tasks that no state holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest

from nni_hyperfd.platform import TaskView, TrialView
from nni_hyperfd.platform.planning import Step, candidates, next_step, picks_left, untried
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.task import RESULT_PHASES, Phase, Status, TaskSettings

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
SPACE = SearchSpace.from_nni({"x": {"_type": "choice", "_value": [1, 2, 3, 4, 5]}})
CONTINUOUS = SearchSpace.from_nni({"x": {"_type": "uniform", "_value": [0, 1]}})
DESCRIBED = (0.5,) * 64


def trial(phase, status, x=None):
    configuration = {} if x is None else {"x": x}
    succeeded = status is Status.SUCCEEDED
    performance, is_result = 0.5 if succeeded else None, succeeded and phase in RESULT_PHASES
    return TrialView(1, 0, phase, status, configuration, None, None, performance, None, None, None, is_result)


def pick(status, x):
    return trial(Phase.FINE_TUNE, status, x)


def task(*trials, meta_feature=DESCRIBED, closed=None, among=1, **settings):
    given = TaskSettings(**{"budget": 2, "candidates": 5, "preset": "paper", **settings})
    return TaskView(7, "e", SPACE, given, None, 1, meta_feature, 1, 1, 0.5, NOW, closed, trials, among)


EXTRACTED = trial(Phase.EXTRACT, Status.SUCCEEDED, 1)
DRAWN = [{"x": x} for x in (3, 1, 5, 2, 4)]
DONE = (EXTRACTED, pick(Status.SUCCEEDED, 1), pick(Status.SUCCEEDED, 2))


@pytest.mark.parametrize(
    ("given", "step"),
    [
        (task(trial(Phase.EXTRACT, Status.PLANNED, 1), meta_feature=None), Step.WAIT),
        (task(trial(Phase.EXTRACT, Status.RUNNING, 1), meta_feature=None), Step.WAIT),
        (task(EXTRACTED), Step.PICK),
        (task(trial(Phase.EXTRACT, Status.FAILED, 1), meta_feature=None), Step.PICK),
        (task(meta_feature=None), Step.PICK),
        (task(EXTRACTED, pick(Status.PLANNED, 1)), Step.WAIT),
        (task(EXTRACTED, pick(Status.RUNNING, 1)), Step.PICK),
        (task(EXTRACTED, pick(Status.FAILED, 1)), Step.PICK),
        (task(EXTRACTED, pick(Status.SUCCEEDED, 1), pick(Status.RUNNING, 2)), Step.WAIT),
        (task(*DONE), Step.LEARN),
        (task(EXTRACTED, pick(Status.FAILED, 1), pick(Status.FAILED, 2)), Step.LEARN),
        (task(*DONE, meta_feature=None), Step.CLOSE),
        (task(*DONE, among=5), Step.LEARN),
        (task(*DONE, among=0), Step.CLOSE),
        (task(*DONE, among=None), Step.CLOSE),
        (task(*DONE, preset="default"), Step.CLOSE),
        (task(*DONE, trial(Phase.LEARN, Status.PLANNED)), Step.WAIT),
        (task(*DONE, trial(Phase.LEARN, Status.RUNNING)), Step.WAIT),
        (task(*DONE, trial(Phase.LEARN, Status.FAILED)), Step.CLOSE),
        (task(*DONE, trial(Phase.LEARN, Status.SUCCEEDED)), Step.CLOSE),
        (task(*DONE, closed=NOW), Step.WAIT),
        (task(EXTRACTED, closed=NOW), Step.WAIT),
        (task(EXTRACTED, *(trial(Phase.IMPORT, Status.SUCCEEDED, x) for x in range(1, 6))), Step.LEARN),
        (task(EXTRACTED, *(pick(Status.FAILED, x) for x in range(1, 6)), budget=5), Step.LEARN),
    ],
)
def test_what_follows_is_read_from_the_trials(given, step):
    assert next_step(given, bool(untried(given, DRAWN))) is step


def test_every_pick_counts_against_the_budget_whatever_became_of_it_and_imports_do_not():
    picks = [pick(status, x) for x, status in enumerate(Status, start=1)]
    assert picks_left(task(EXTRACTED, *picks[:1])) == 1
    assert picks_left(task(EXTRACTED, *picks, budget=5)) == 1
    assert picks_left(task(*picks)) == 0, "an extract trial that ran as a pick may come on top"
    assert picks_left(task(trial(Phase.IMPORT, Status.SUCCEEDED, 1))) == 2


def test_what_was_tried_or_imported_is_no_candidate_any_more():
    assert untried(task(), DRAWN) == DRAWN
    tried = task(EXTRACTED, pick(Status.FAILED, 3), trial(Phase.IMPORT, Status.SUCCEEDED, 5))
    assert [c["x"] for c in untried(tried, DRAWN)] == [1, 2, 4], "an extract trial tries nothing"


@pytest.mark.parametrize("space", [SPACE, CONTINUOUS], ids=["choices", "continuous"])
def test_the_candidates_of_a_task_are_the_same_ones_at_every_call(space):
    settings = TaskSettings(seed=3)
    drawn = candidates(space, settings, 7, 5)
    assert candidates(space, settings, 7, 5) == drawn
    assert candidates(space, settings, 7, 2) == drawn[:2]
    assert candidates(space, settings, 8, 5) != drawn
    assert candidates(space, replace(settings, seed=4), 7, 5) != drawn
