from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nni_hyperfd.belief.evidence import PastTask
from nni_hyperfd.belief.model import BeliefModel

WIDTH = 3


def past_task(place, seed, meta_feature=None, n=40):
    """EncodedConfigurations are the better the nearer their first number is to `place`."""
    inputs = np.random.default_rng(seed).random((n, WIDTH), dtype=np.float32)
    return PastTask(inputs, -np.abs(inputs[:, 0] - place), meta_feature)


def learned(tasks, seed=0, before=None):
    pool = np.random.default_rng(77).random((200, WIDTH), dtype=np.float32)
    return BeliefModel.learned(tasks, pool, seed, before)


def picks(place, seed, n=4):
    """The few results of a task of which nothing else is known."""
    whole = past_task(place, seed)
    return PastTask(whole.inputs[:n], whole.performance[:n], sampled=False)


def test_without_past_tasks_every_candidate_is_as_good_as_the_next():
    model, inputs = learned([]), np.random.default_rng(1).random((20, WIDTH), dtype=np.float32)
    mean, deviation = model.search(inputs, None).expected()
    assert model.width == WIDTH and (mean == 0).all() and (deviation > 0).all()
    assert [len(part) for part in model.leaning(np.zeros(2))] == [0, 0]


def test_without_past_tasks_the_first_pick_is_any_in_the_middle_of_the_space_and_the_second_one_away_from_it():
    inputs = np.random.default_rng(1).random((21, WIDTH), dtype=np.float32)
    search = learned([]).search(inputs, None)
    scores = search.scores([])
    nearer = np.argsort(((inputs - 0.5) ** 2).sum(axis=1))[:11]
    assert set(np.flatnonzero(scores == scores.max())) == set(nearer)
    pick = nearer[0]
    beside = search.scores([int(pick)])
    search.observe(int(pick), 0.5)
    furthest = nearer[np.square(inputs[nearer] - inputs[pick]).sum(axis=1).argmax()]
    assert beside.argmax() == search.scores([]).argmax() == furthest


def test_choices_have_no_middle():
    inputs = np.eye(WIDTH, dtype=np.float32)[[0, 1, 2, 2]]
    assert len(set(learned([]).search(inputs, None).scores([]))) == 1


@pytest.mark.parametrize("count", [1, 2, 8])
def test_what_past_tasks_share_is_expected_of_a_new_one(count):
    model = learned([past_task(0.3, seed) for seed in range(count)])
    fresh = past_task(0.3, 99)
    mean, _ = model.search(fresh.inputs, None).expected()
    assert np.corrcoef(mean, fresh.performance)[0, 1] > 0.8


def test_where_meta_features_tell_tasks_apart_the_belief_leans_on_the_near_ones():
    places = np.linspace(0.05, 0.95, 12)
    model = learned([past_task(p, seed, np.array([p, -p])) for seed, p in enumerate(places)])
    assert all(belief.trust > 0 for belief in model.beliefs)
    distances, weights = model.leaning(np.array([0.1, -0.1]))
    assert set(np.argsort(distances)[:2]) == {0, 1} and weights.argmax() in (0, 1)
    fresh = past_task(0.1, 99)
    told, _ = model.search(fresh.inputs, np.array([0.1, -0.1])).expected()
    untold, _ = model.search(fresh.inputs, None).expected()
    assert np.corrcoef(told, fresh.performance)[0, 1] > np.corrcoef(untold, fresh.performance)[0, 1] + 0.2


def test_picks_teach_where_to_look():
    model = learned([picks(0.3, seed) for seed in range(12)])
    fresh = past_task(0.3, 99)
    mean, _ = model.search(fresh.inputs, None).expected()
    assert np.corrcoef(mean, fresh.performance)[0, 1] > 0.6


def test_features_are_learned_from_whole_tasks_and_kept_until_there_is_another_one():
    whole = [past_task(0.3, 0), past_task(0.4, 1)]
    first = learned(whole)
    assert learned([*whole, picks(0.3, 2)], before=first).features is first.features
    assert learned([picks(0.3, 2), *whole[:1]], before=first).features is not first.features
    more = learned([*whole, past_task(0.5, 3)], before=first)
    assert more.features is not first.features and len(more.features.source) == 3
    alone = learned([picks(0.3, seed) for seed in range(2)])
    assert learned([picks(0.3, seed) for seed in range(3)], before=alone).features is not alone.features


def test_features_that_are_kept_are_those_that_would_be_learned():
    tasks = [past_task(0.3, 0), past_task(0.4, 1), picks(0.3, 2)]
    kept, anew = learned(tasks, before=learned(tasks[:2])), learned(tasks)
    inputs = past_task(0.0, 3).inputs
    for one, other in zip(kept.search(inputs, None).expected(), anew.search(inputs, None).expected(), strict=True):
        assert (one == other).all()


def test_120_landmarks_are_drawn_of_what_was_tried_and_else_of_the_pool():
    tasks = [past_task(0.3, seed) for seed in range(4)]
    tried = {tuple(row) for task in tasks for row in task.inputs.astype(float).tolist()}
    for view in learned(tasks).features.maps:
        assert len(view.landmarks) == 120 and set(map(tuple, view.landmarks.tolist())) <= tried
    few = learned([picks(0.3, 0)]).features.maps[0].landmarks.tolist()
    assert len(few) == 120 and set(map(tuple, picks(0.3, 0).inputs.astype(float).tolist())) <= set(map(tuple, few))


def test_same_seed_same_model():
    tasks = [past_task(0.3, 0), past_task(0.6, 1), past_task(0.9, 2)]
    inputs = past_task(0.0, 3).inputs
    first, second = (learned(tasks).search(inputs, None).expected() for _ in range(2))
    assert (first[0] == second[0]).all() and (first[1] == second[1]).all()


def test_what_is_expected_is_the_average_of_the_views():
    tasks = [past_task(place, seed, np.array([place])) for seed, place in enumerate((0.2, 0.4, 0.6, 0.8))]
    model, inputs, meta_feature = learned(tasks), past_task(0.0, 9).inputs, np.array([0.3])
    mean, deviation = model.search(inputs, meta_feature).expected()
    alone = [
        replace(model, features=replace(model.features, maps=[view]), beliefs=[belief])
        for view, belief in zip(model.features.maps, model.beliefs, strict=True)
    ]
    means, deviations = zip(*(one.search(inputs, meta_feature).expected() for one in alone), strict=True)
    assert len(alone) == 3 and not np.allclose(means[0], means[1])  # each has its own points
    assert np.allclose(mean, np.mean(means, axis=0))
    assert np.allclose(deviation**2, np.mean(np.square(deviations), axis=0))
    weights = np.mean([one.leaning(meta_feature)[1] for one in alone], axis=0)
    assert np.allclose(model.leaning(meta_feature)[1], weights)
