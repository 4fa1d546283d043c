from __future__ import annotations

import numpy as np

from nni_hyperfd.belief.agreement import agreeing
from nni_hyperfd.belief.evidence import Picks, Whole
from nni_hyperfd.belief.scales import ScalePrior

K, NOISE = 4, 0.1


def kept(*tasks):
    root = 0.6 * np.eye(K)
    seen = [task.seen(np.zeros(K), root, NOISE, ScalePrior(0.0, 1.0)) for task in tasks]
    return agreeing(tasks, seen, root, 5.0)


def task(direction, seed, n=40, kind=Whole):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, K))
    return kind(features, features @ direction + 0.1 * rng.normal(size=n))


ONE = np.array([1.0, 0.5, 0.0, 0.0])
OTHER = np.array([0.0, 0.0, 1.0, -0.5])


def test_tasks_that_agree_or_have_nothing_to_do_with_each_other_are_kept():
    assert kept(task(ONE, 0)) == [0]
    assert kept(*(task(ONE, seed) for seed in range(4))) == [0, 1, 2, 3]
    assert kept(task(ONE, 0), task(OTHER, 1), task(ONE + OTHER, 2)) == [0, 1, 2]


def test_the_one_that_prefers_the_opposite_is_left_out_wherever_it_stands():
    for place in range(4):
        tasks = [task(-ONE if seed == place else ONE, seed) for seed in range(4)]
        assert kept(*tasks) == [other for other in range(4) if other != place]


def test_a_minority_is_left_out_one_after_another():
    assert kept(*(task(-ONE if seed in (1, 4) else ONE, seed) for seed in range(7))) == [0, 2, 3, 5, 6]


def test_of_two_that_contradict_each_other_one_stays():
    assert len(kept(task(ONE, 0), task(-ONE, 1))) == 1


def test_many_picks_contradict_and_none_of_them_is_left_out():
    picks = [task(ONE, seed, n=4, kind=Picks) for seed in range(1, 40)]
    assert kept(task(-ONE, 0), *picks) == list(range(1, 40))
    assert kept(*picks) == list(range(39))
