from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nni_hyperfd.belief.model import BeliefModel, PastTask

WIDTH = 3


def past_task(place, seed, meta_feature=None, n=40):
    """EncodedConfigurations are the better the nearer their first number is to `place`."""
    inputs = np.random.default_rng(seed).random((n, WIDTH), dtype=np.float32)
    return PastTask(inputs, -np.abs(inputs[:, 0] - place), meta_feature)


def learned(tasks, seed=0):
    return BeliefModel.learned(tasks, WIDTH, np.random.default_rng(seed))


def test_without_past_tasks_every_candidate_is_as_good_as_the_next():
    model, inputs = learned([]), np.random.default_rng(1).random((20, WIDTH), dtype=np.float32)
    mean, deviation = model.search(inputs, None).expected()
    assert model.width == WIDTH and (mean == 0).all() and (deviation > 0).all()
    assert [len(part) for part in model.leaning(np.zeros(2))] == [0, 0]


@pytest.mark.parametrize("count", [1, 2, 8])
def test_what_past_tasks_share_is_expected_of_a_new_one(count):
    model = learned([past_task(0.3, seed) for seed in range(count)])
    fresh = past_task(0.3, 99)
    mean, _ = model.search(fresh.inputs, None).expected()
    assert np.corrcoef(mean, fresh.performance)[0, 1] > 0.8


def test_where_meta_features_tell_tasks_apart_the_belief_leans_on_the_near_ones():
    places = np.linspace(0.05, 0.95, 12)
    model = learned([past_task(p, seed, np.array([p, -p])) for seed, p in enumerate(places)])
    assert all(view.belief.trust > 0 for view in model.views)
    distances, weights = model.leaning(np.array([0.1, -0.1]))
    assert set(np.argsort(distances)[:2]) == {0, 1} and weights.argmax() in (0, 1)
    fresh = past_task(0.1, 99)
    told, _ = model.search(fresh.inputs, np.array([0.1, -0.1])).expected()
    untold, _ = model.search(fresh.inputs, None).expected()
    assert np.corrcoef(told, fresh.performance)[0, 1] > np.corrcoef(untold, fresh.performance)[0, 1] + 0.2


def test_a_model_knows_the_tasks_scales_and_120_landmarks_a_view():
    tasks = [past_task(0.3, seed) for seed in range(4)]
    model = learned([replace(task, performance=3 * task.performance) for task in tasks])
    expected = [np.log(3 * one) for one in np.exp(learned(tasks).scales.logarithms)]
    assert np.allclose(model.scales.logarithms, expected) and len(expected) == 4
    assert model.search(tasks[0].inputs, None).scales is model.scales
    seen = {tuple(row) for task in tasks for row in task.inputs.astype(float).tolist()}
    for view in model.views:
        assert len(view.features.landmarks) == 120 and set(map(tuple, view.features.landmarks.tolist())) <= seen


def test_same_seed_same_model():
    tasks = [past_task(0.3, 0), past_task(0.6, 1), past_task(0.9, 2)]
    inputs = past_task(0.0, 3).inputs
    first, second = (learned(tasks).search(inputs, None).expected() for _ in range(2))
    assert (first[0] == second[0]).all() and (first[1] == second[1]).all()


def test_what_is_expected_is_the_average_of_the_views():
    tasks = [past_task(place, seed, np.array([place])) for seed, place in enumerate((0.2, 0.4, 0.6, 0.8))]
    model, inputs, meta_feature = learned(tasks), past_task(0.0, 9).inputs, np.array([0.3])
    assert len(model.views) > 1
    mean, deviation = model.search(inputs, meta_feature).expected()
    alone = [replace(model, views=[view]) for view in model.views]
    means, deviations = zip(*(one.search(inputs, meta_feature).expected() for one in alone), strict=True)
    assert not np.allclose(means[0], means[1])  # each has its own points
    assert np.allclose(mean, np.mean(means, axis=0))
    assert np.allclose(deviation**2, np.mean(np.square(deviations), axis=0))
    weights = np.mean([one.leaning(meta_feature)[1] for one in alone], axis=0)
    assert np.allclose(model.leaning(meta_feature)[1], weights)
