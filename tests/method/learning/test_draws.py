"""What batches are made of."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from nni_hyperfd.method import RankerSettings
from nni_hyperfd.method.learning import draws

SETTINGS = RankerSettings(image_batch=4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def numbered(count, first=0):
    """Images whose every feature is their own number."""
    return torch.arange(first, first + count).float().reshape(-1, 1, 1, 1).expand(count, 3, 3, 2)


def numbers(images):
    return images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("results", [1, 3, 200, 450])
def test_a_list_is_the_whole_task_up_to_its_longest_length(results):
    places = draws.list_of(results, generator()).tolist()
    assert len(places) == len(set(places)) == min(results, 200)
    assert set(places) <= set(range(results))


def test_any_result_may_be_left_out_of_a_long_list(monkeypatch):
    monkeypatch.setattr(draws, "LONGEST_LIST", 2)
    drawn = Counter(place for seed in range(600) for place in draws.list_of(3, generator(seed)).tolist())
    assert all(abs(count - 400) < 50 for count in drawn.values()) and len(drawn) == 3  # standard deviation 11.5


@pytest.mark.parametrize(
    ("images", "count", "sizes"),
    [(100, 2, [4, 4]), (8, 2, [4, 4]), (7, 2, [4, 3]), (5, 1, [4]), (2, 2, [1, 1]), (1, 1, [1])],
)
def test_image_batches_are_disjoint_and_of_limited_size(images, count, sizes):
    batches = [numbers(batch) for batch in draws.image_batches(numbered(images), count, 4, generator())]
    drawn = [number for batch in batches for number in batch]
    assert [len(batch) for batch in batches] == sizes
    assert len(set(drawn)) == len(drawn) and set(drawn) <= set(range(images))


def test_too_few_images_are_repeated():
    assert [numbers(batch) for batch in draws.image_batches(numbered(1), 2, 4, generator())] == [[0.0], [0.0]]


def test_images_are_drawn_at_random():
    drawn = Counter()
    for seed in range(400):
        (batch,) = draws.image_batches(numbered(8), 1, 4, generator(seed))
        drawn.update(numbers(batch))
    assert len(drawn) == 8 and all(abs(count - 200) < 50 for count in drawn.values())  # standard deviation 10


def test_a_triplet_is_two_batches_of_one_data_set_and_one_of_another():
    sets = [numbered(10), numbered(10, 100), numbered(10, 200)]
    (anchor, positive, negative), replayed = draws.triplet_parts(sets, [0, 1, 0], None, SETTINGS, generator())
    other = int(numbers(negative)[0]) // 100 * 100
    assert replayed == [] and other in (0, 200)
    assert len({*numbers(anchor), *numbers(positive)}) == 8
    assert {*numbers(anchor), *numbers(positive)} < set(range(100, 110))
    assert len(numbers(negative)) == 4 and set(numbers(negative)) < set(range(other, other + 10))


def test_anchors_are_drawn_by_their_odds_and_negatives_evenly():
    sets, replay = [numbered(2), numbered(2, 100), numbered(2, 200)], torch.tensor([[300.0, 0.0], [400.0, 0.0]])
    anchors, negatives = Counter(), Counter()
    for seed in range(900):
        batches, replayed = draws.triplet_parts(sets, [5, 0.5, 0.5], replay, SETTINGS, generator(seed))
        anchor = numbers(batches[0])[0] // 100 * 100
        anchors[anchor] += 1
        if anchor == 0:
            negatives[replayed[0][0].item() if replayed else numbers(batches[2])[0] // 100 * 100] += 1
        assert len(batches) + len(replayed) == 3
    # 5 of 6, and a twelfth each; standard deviations 11 and 8. Negatives: a quarter of those 750 each; 12.
    assert abs(anchors[0] - 750) < 50 and abs(anchors[100] - 75) < 35 and abs(anchors[200] - 75) < 35
    assert set(negatives) == {100, 200, 300, 400}
    assert all(abs(count - anchors[0] / 4) < 50 for count in negatives.values())


@pytest.mark.parametrize("replay", [None, torch.zeros(0, 2)])
def test_a_single_data_set_makes_no_triplet(replay):
    assert draws.triplet_parts([numbered(5)], [1], replay, SETTINGS, generator()) == ([], [])


def test_a_past_task_is_negative_enough():
    batches, (negative,) = draws.triplet_parts([numbered(5)], [1], torch.full((1, 2), 7.0), SETTINGS, generator())
    assert len(batches) == 2 and negative.tolist() == [7, 7]


def test_shares():
    assert draws.shared(5, 1) == [5] and draws.shared(1, 4) == [0.25] * 4 and draws.shared(3, 0) == []


def test_draws_are_in_proportion_to_the_odds():
    assert draws.times_drawn([0, 2, 0], 4, generator()) == {1: 4}
    drawn = Counter()
    for seed in range(300):
        times = draws.times_drawn([5, 1, 0, 1], 4, generator(seed))
        assert times.total() == 4
        drawn.update(times)
    # 5/7 and 1/7 of 1200; standard deviations 16 and 12.
    assert abs(drawn[0] - 857) < 75 and abs(drawn[1] - 171) < 60 and abs(drawn[3] - 171) < 60 and 2 not in drawn
