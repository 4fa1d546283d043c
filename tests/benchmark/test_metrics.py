from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from nni_hyperfd.benchmark import metrics


@pytest.mark.parametrize("k", [1, 2, 4, 7, 9])
def test_expected_best_of_random_against_all_draws(k):
    performance = np.array([0.3, 0.1, 0.9, 0.9, -2.0, 0.4, 0.4])
    draws = list(combinations(performance, min(k, len(performance))))
    assert metrics.expected_best_of_random(performance, k) == pytest.approx(np.mean([max(draw) for draw in draws]))


def test_expected_best_of_many_does_not_overflow():
    performance = np.arange(1.0, 100_001.0)
    assert metrics.expected_best_of_random(performance, 4) == pytest.approx(4 / 5 * 100_001, rel=1e-6)


def test_gain_is_zero_on_average_for_random_picks():
    performance = np.array([1.0, 4.0, 2.0, 8.0, 5.0])
    assert np.mean([metrics.gain(performance, list(p)) for p in combinations(range(5), 2)]) == pytest.approx(0)


def test_rank_percent_by_hand():
    rng = np.random.default_rng(0)
    performance = np.array([0.1, 0.4, 0.3, 0.2])
    assert metrics.rank_percent(performance, [0, 2, 3, 1], rng).tolist() == [100, 50, 50, 25]


def test_ties_are_broken_at_random():
    performance = np.array([1.0, 1.0, 1.0, 0.0])
    ranks = [metrics.rank_percent(performance, [0], np.random.default_rng(s))[0] for s in range(300)]
    assert set(ranks) == {25, 50, 75} and np.mean(ranks) == pytest.approx(50, abs=4)


def test_ndcg_by_hand():
    performance = np.array([0.0, 0.5, 1.0])
    best, second = 1.0, 2**0.5 - 1
    assert metrics.ndcg(performance, [2, 1]) == pytest.approx(1)
    expected = (second + best / np.log2(3)) / (best + second / np.log2(3))
    assert metrics.ndcg(performance, [1, 2]) == pytest.approx(expected)
    assert metrics.ndcg(performance, [0]) == 0
    assert metrics.ndcg(np.ones(3), [0, 1]) == 1


def test_normalised_regret_by_hand():
    assert metrics.normalised_regret(np.array([1.0, 3.0, 2.0]), [0, 2]) == pytest.approx(0.5)
    assert metrics.normalised_regret(np.ones(3), [0]) == 0
