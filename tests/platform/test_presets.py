"""How the default preset picks; the course of a task with the paper's is in tests/experiment/test_tuner.py."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import delete

from nni_hyperfd.belief.evidence import PastTask
from nni_hyperfd.belief.model import BeliefModel
from nni_hyperfd.method import recipe
from nni_hyperfd.platform import Platform
from nni_hyperfd.recommenders.base import Task
from nni_hyperfd.recommenders.hyperfd import HyperFD
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state.tables import EncoderRow
from nni_hyperfd.task import Phase, Preset, TaskSettings

SPACE = SearchSpace.from_nni(
    {"x": {"_type": "uniform", "_value": [0, 1]}, "kind": {"_type": "choice", "_value": ["a", "b"]}}
)
FIRST = {"budget": 6, "candidates": 12, "service": False}


def bump(configuration):
    return -((configuration["x"] - 0.6) ** 2) - 0.1 * (configuration["kind"] == "b")


def run(platform, name, score=bump, concurrency=1, **settings):
    """A whole task, `concurrency` trials at a time; its configurations in the order of the picks."""
    task_id = platform.open_task(name, SPACE, TaskSettings(**{**FIRST, **settings}))
    waiting = []
    while platform.task(task_id).closed is None:
        while len(waiting) < concurrency and (trial := platform.next_trial(task_id)) is not None:
            platform.start(trial.id, len(platform.task(task_id).trials))
            waiting.append(platform.task(task_id).trials[-1])
        trial = waiting.pop(0)
        value = score(trial.configuration)
        platform.observe(task_id, trial.parameter_id, value, None if value is not None else "failed")
        platform.settle(task_id)
    return [trial.configuration for trial in platform.task(task_id).trials]


def candidates_of(task_id, seed=0, n=12):
    return SPACE.sample(n, np.random.default_rng([seed, task_id]))


def test_picks_are_those_of_the_recommender_that_learned_from_the_past_tasks(lab):
    """The same through the recommender's own interface, with the past written down by hand."""
    platform = Platform(lab.state)
    run(platform, "one")
    run(platform, "two", candidates=20)
    picks = run(platform, "three", budget=4, candidates=30)

    past = []
    for task in platform.tasks()[:2]:
        tried = [t.configuration for t in task.trials]
        past.append(PastTask(SPACE.encode(tried).vectors, np.array([*map(bump, tried)]), sampled=False))
    candidates = candidates_of(3, n=30)
    recommender = HyperFD(0, BeliefModel.learned(past, SPACE.encode(candidates).vectors, 0))
    recommender.start_task(Task(4), SPACE.encode(candidates))
    expected = []
    for _ in range(4):
        (index,) = recommender.ask(1)
        recommender.tell(index, bump(candidates[index]))
        expected.append(candidates[index])
    assert picks == expected


def peak(place):
    return lambda configuration: -abs(configuration["x"] - place)


def test_past_tasks_lead_the_first_pick(lab):
    platform = Platform(lab.state)
    for name in ("one", "two", "three"):
        run(platform, name)
    best = sorted(candidates_of(4, n=200), key=bump)[-20:]
    assert run(platform, "four", candidates=200, budget=1)[0] in best


@pytest.mark.slow
def test_results_lead_to_the_place_that_this_data_set_likes(lab):
    platform = Platform(lab.state)
    for place in (0.1, 0.5, 0.9, 0.3, 0.7):
        run(platform, str(place), peak(place), budget=12)
    for place in (0.15, 0.85):
        picks = run(platform, f"new {place}", peak(place), candidates=200, budget=8)
        assert min(abs(pick["x"] - place) for pick in picks) < 0.15


def test_trials_that_still_run_are_conditioned_on(lab):
    platform = Platform(lab.state)
    run(platform, "one")
    picks = run(platform, "two", concurrency=4, budget=4, candidates=100)
    assert len({SPACE.key(pick) for pick in picks}) == 4
    alone = run(Platform(lab.folder / "again.sqlite"), "one")
    assert alone == [t.configuration for t in platform.tasks()[0].trials]


def test_the_next_pick_is_chosen_when_there_is_room_for_it_and_knows_all_results(lab):
    def picks(result):
        platform = Platform(lab.folder / f"{result}.sqlite")
        run(platform, "one")
        task_id = platform.open_task("two", SPACE, TaskSettings(**{**FIRST, "candidates": 50}))
        for parameter_id in range(3):
            platform.start(platform.next_trial(task_id).id, parameter_id)
        platform.observe(task_id, 0, 0.0)
        platform.observe(task_id, 2, result)
        platform.settle(task_id)
        assert len(platform.task(task_id).trials) == 3
        platform.next_trial(task_id)
        return [t.configuration for t in platform.task(task_id).trials]

    worse, better = picks(-0.2), picks(0.2)
    assert worse[:3] == better[:3] and worse[3] != better[3]


def test_less_is_more_mirrors_more_is_more(lab):
    up = [run(Platform(lab.folder / "up.sqlite"), name) for name in ("one", "two")]
    down = Platform(lab.folder / "down.sqlite")
    assert up == [run(down, name, lambda c: -bump(c), maximize=False) for name in ("one", "two")]


def test_a_killed_platform_picks_what_it_would_have_picked(lab):
    platform = Platform(lab.state)
    run(platform, "one")
    whole = run(platform, "two")
    again = Platform(lab.folder / "other.sqlite")
    run(again, "one")
    task_id = again.open_task("two", SPACE, TaskSettings(**FIRST))
    for parameter_id, configuration in enumerate(whole):
        trial = Platform(lab.folder / "other.sqlite").next_trial(task_id)
        assert trial.configuration == configuration
        again.start(trial.id, parameter_id)
        again.observe(task_id, parameter_id, bump(configuration))


def test_failed_trials_and_imported_results_are_taken_as_they_come(lab):
    platform = Platform(lab.state)
    run(platform, "one")
    task_id = platform.open_task("two", SPACE, TaskSettings(**{**FIRST, "candidates": 100}))
    platform.add_experience(task_id, {"x": 0.6, "kind": "a"}, 0.9)
    picks = run(platform, "two", lambda c: None if c["kind"] == "b" else bump(c))
    trials = platform.task(task_id).trials
    assert len(trials) == 7 and len({SPACE.key(pick) for pick in picks}) == 7
    assert [t.phase for t in trials] == [Phase.IMPORT] + [Phase.FINE_TUNE] * 6


@pytest.mark.parametrize("constant", [0.5, None])
def test_a_task_with_nothing_to_rank_is_no_obstacle(lab, constant):
    platform = Platform(lab.state)
    assert len(run(platform, "one", lambda c: constant)) == 6
    assert len(run(platform, "two")) == 6


def test_what_was_learned_is_kept_until_there_is_more_to_learn_from(lab, monkeypatch):
    learned, learn = [], BeliefModel.learned

    def watch(past, *others, **named):
        learned.append(len(past))
        return learn(past, *others, **named)

    monkeypatch.setattr(BeliefModel, "learned", watch)
    platform = Platform(lab.state)
    run(platform, "one")
    run(platform, "two")
    assert learned == [0, 1], "not once for every pick"
    ranking = platform.rank(SPACE, None, TaskSettings(candidates=30))
    assert learned == [0, 1, 2]
    assert [r.rank for r in ranking.recommendations] == list(range(1, 31))
    assert all(r.deviation > 0 for r in ranking.recommendations) and ranking.neighbours == []
    assert platform.rank(SPACE, None, TaskSettings(candidates=30)) == ranking
    assert learned == [0, 1, 2]
    platform.rank(SPACE, None, TaskSettings(candidates=30, seed=1))
    assert learned == [0, 1, 2, 2], "another seed draws other past tasks"


@pytest.mark.parametrize("preset", Preset)
def test_what_can_be_learned_before_the_first_pick_is_learned_by_prepare(lab, preset, monkeypatch):
    platform = Platform(lab.state)
    run(platform, "one")
    with platform.store.write() as session:
        session.execute(delete(EncoderRow))  # as an upgrade leaves the state, where an earlier format had another one
    platform = Platform(lab.state)
    task_id = platform.open_task("two", SPACE, TaskSettings(**FIRST, preset=preset))
    platform.prepare(task_id)

    def late(*_, **__):
        raise AssertionError("a trial waits for what could have been learned before")

    monkeypatch.setattr(BeliefModel, "learned", late)
    monkeypatch.setattr(recipe, "learned_encoder", late)
    assert platform.next_trial(task_id) is not None
