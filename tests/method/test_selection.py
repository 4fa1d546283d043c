from __future__ import annotations

from collections import Counter

import pytest
import torch

from nni_hyperfd.method import explore_exploit

SCORES = torch.tensor([0.3, 2.0, -1.0, 5.0, 0.7, 4.0, 1.0, -3.0])
RANKING = [3, 5, 1, 6, 4, 0, 2, 7]


@pytest.mark.parametrize("budget", range(0, 11))
@pytest.mark.parametrize("exploration", [0.0, 0.3, 0.5, 1.0])
def test_top_first_then_the_rest_within_the_budget(budget, exploration):
    chosen = explore_exploit(SCORES, budget, exploration, seed=0)
    size = min(budget, 8)
    top = size - int(size * exploration)
    assert len(chosen) == len(set(chosen)) == size
    assert chosen[:top] == RANKING[:top]
    assert set(chosen[top:]) <= set(RANKING[top:])


def test_extremes_of_exploration():
    assert explore_exploit(SCORES, 8, 0.0, seed=4) == RANKING
    drawn = Counter(index for seed in range(400) for index in explore_exploit(SCORES, 2, 1.0, seed))
    # Uniform: every index 100 times on average, standard deviation below 9.
    assert set(drawn) == set(range(8))
    assert all(60 < count < 140 for count in drawn.values())


def test_the_drawn_part_is_uniform_over_the_rest():
    drawn = Counter(explore_exploit(SCORES, 4, 0.5, seed)[2 + i] for seed in range(300) for i in range(2))
    assert set(drawn) == set(RANKING[2:])
    assert all(60 < count < 140 for count in drawn.values())


def test_ties_are_broken_at_random_by_the_seed():
    first = Counter(explore_exploit(torch.tensor([1.0, 0.0, 1.0, 1.0]), 1, 0.0, seed)[0] for seed in range(300))
    assert set(first) == {0, 2, 3}
    assert all(60 < count < 140 for count in first.values())


def test_same_seed_same_choice_and_the_global_random_state_is_left_alone():
    state = torch.random.get_rng_state()
    assert explore_exploit(SCORES, 6, 0.5, seed=3) == explore_exploit(SCORES, 6, 0.5, seed=3)
    assert len({tuple(explore_exploit(SCORES, 6, 0.5, seed)) for seed in range(20)}) > 10
    assert torch.equal(torch.random.get_rng_state(), state)


def test_rounding_follows_decimal_numbers():
    # As binary floating point 0.29 * 100 is 28.999999999999996; 29 are drawn all the same.
    choices = [explore_exploit(torch.arange(200.0), 100, 0.29, seed) for seed in range(5)]
    assert all(choice[:71] == list(range(199, 128, -1)) for choice in choices)
    assert len({choice[71] for choice in choices}) > 1


def test_empty_one_and_bad_input():
    assert explore_exploit(torch.tensor([]), 4, 0.5, seed=0) == []
    assert explore_exploit(torch.tensor([1.0]), 4, 0.5, seed=0) == [0]
    with pytest.raises(ValueError, match="finite"):
        explore_exploit(torch.tensor([1.0, float("nan")]), 1, 0.5, seed=0)
    with pytest.raises(ValueError, match="budget"):
        explore_exploit(SCORES, -1, 0.5, seed=0)
    with pytest.raises(ValueError, match="exploration"):
        explore_exploit(SCORES, 1, 1.5, seed=0)
