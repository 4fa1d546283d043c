from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from nni_hyperfd.method.drawing import tasks_to_learn_from
from nni_hyperfd.method.settings import MOST_TASKS


def draw(own, offline, seed=0):
    return tasks_to_learn_from(own, offline, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("own", "offline"),
    [([], []), ([7], []), ([], [3]), ([5, 9], [1, 2, 7]), (list(range(0, 64, 2)), []), (list(range(20)), [30, 31])],
)
def test_few_tasks_are_all_learned_from_in_order_of_arrival(own, offline):
    assert draw(own, offline) == sorted(own + offline)


@pytest.mark.parametrize(
    ("own", "offline", "of_offline"),
    [
        (range(100), range(100, 200), 0),
        (range(10, 42), range(10), 0),
        (range(10, 41), range(10), 1),
        (range(50, 60), range(50), 22),
        ([], range(50), 32),
    ],
)
def test_of_many_the_newest_of_clients_and_others_and_own_data_sets_in_what_they_leave(own, offline, of_offline):
    for seed in range(20):
        drawn = draw(list(own), list(offline), seed)
        assert len(drawn) == len(set(drawn)) == MOST_TASKS == 32
        assert drawn == sorted(drawn) and all(type(number) is int for number in drawn)
        assert sum(number in offline for number in drawn) == of_offline
        assert not len(own) or own[-1] in drawn
        if of_offline:
            assert set(own) <= set(drawn)


def test_every_older_task_comes_up_as_often():
    drawn = Counter(number for seed in range(1000) for number in draw(list(range(93)), [], seed))
    assert drawn.pop(92) == 1000
    # 31 of 92 in 1000 draws: 337; standard deviation 15.
    assert len(drawn) == 92 and all(abs(count - 337) < 75 for count in drawn.values())
    offline = Counter(number for seed in range(500) for number in draw([], list(range(64)), seed))
    assert len(offline) == 64 and all(abs(count - 250) < 60 for count in offline.values())


def test_the_draw_follows_the_generator_and_gives_the_same_for_the_same():
    own, offline = list(range(60)), list(range(60, 90))
    assert draw(own, offline, 3) == draw(own, offline, 3) != draw(own, offline, 4)
    assert own == list(range(60)) and offline == list(range(60, 90))
