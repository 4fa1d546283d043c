"""The attacks find what there is to find, and no more than the guarantee allows where there is noise."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy import stats

from nni_hyperfd.privacy import attacks, mechanism

RADIUS = 2.0
DELTA = 1e-5


def images(count=400, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 8))


def rng():
    return np.random.default_rng(1)


def scale(epsilon, size):
    return mechanism.noise_multiplier(epsilon, DELTA) * mechanism.sensitivity(RADIUS, size)


def test_membership_in_a_small_data_set_shows_without_noise_and_hardly_with_it():
    rows = images()
    few, many = (attacks.membership_auc(rows, size, 0.0, 200, rng()) for size in (10, 150))
    assert few > 0.7 and 0.5 < many < few - 0.1
    bounded = mechanism.clipped(rows, RADIUS)
    noised = attacks.membership_auc(bounded, 10, scale(1, 10), 200, rng())
    assert abs(noised - 0.5) < 0.1
    with pytest.raises(ValueError, match="400 images are too few to draw data sets of 200 from half of them"):
        attacks.membership_auc(rows, 200, 0.0, 1, rng())


@pytest.mark.parametrize("epsilon", [1, 3, 8])
def test_the_worst_pair_is_told_apart_as_well_as_the_noise_lets_it_and_no_better(epsilon):
    multiplier = mechanism.noise_multiplier(epsilon, DELTA)
    audit = attacks.worst_case(RADIUS, 100, multiplier, 2000, random.Random(0))
    assert audit.auc == pytest.approx(stats.norm.cdf(1 / (multiplier * 2**0.5)), abs=0.03)
    assert 0 <= audit.epsilon <= epsilon and audit.runs == 2000
    assert epsilon < 3 or audit.epsilon > 0.15 * epsilon, "it finds something"


def test_at_an_epsilon_of_three_the_worst_case_is_below_seven_tenths():
    assert stats.norm.cdf(1 / (mechanism.noise_multiplier(3, DELTA) * 2**0.5)) < 0.7


def test_an_audit_would_find_noise_that_is_too_small():
    multiplier = mechanism.noise_multiplier(3, DELTA)
    audit = attacks.worst_case(RADIUS, 100, multiplier / 8, 2000, random.Random(0))
    assert audit.epsilon > 3


def test_the_bound_counts_both_error_rates_and_proves_nothing_from_chance():
    same = np.random.default_rng(0).normal(size=(2, 2000))
    assert attacks.epsilon_bound(*same) < 0.1
    far = np.random.default_rng(0).normal(size=2000)
    assert attacks.epsilon_bound(far + 100, far) == pytest.approx(np.log(0.9963 / 0.0037), abs=0.3)


def test_a_crafted_extractor_sees_everything_without_clipping_and_little_with_noise():
    rows = mechanism.clipped(images(), RADIUS)
    assert attacks.crafted_cosine(rows, None, 0.0, 20, rng()) == pytest.approx(1.0)
    assert attacks.crafted_cosine(rows, RADIUS, 0.0, 20, rng()) == pytest.approx(1.0), "clipping alone hides nothing"
    assert attacks.crafted_cosine(rows, RADIUS, scale(3, 300), 200, rng()) < 0.25


def test_what_a_history_tells_adds_up_as_the_accountant_says():
    """Of two vectors as far apart as any can be; n grows by 1, so the noise stays the same."""
    rows = np.zeros((120, 1))
    rows[::2], rows[1::2] = RADIUS, -RADIUS
    for times in (1, 5):
        told = attacks.history_auc(rows, 100, scale(3, 100), times, 2000, rng())
        worst = stats.norm.cdf(times**0.5 / (mechanism.noise_multiplier(3, DELTA) * 2**0.5))
        same = 59 / 119  # of pairs that are alike
        assert told <= worst + 0.02 and told == pytest.approx(same / 2 + (1 - same) * worst, abs=0.05)
    assert attacks.history_auc(images(), 100, 1e-9, 3, 20, rng()) == 1.0, "without noise"


def test_auc_by_hand():
    assert attacks.auc(np.array([2.0, 3.0]), np.array([1.0, 2.0])) == pytest.approx(3.5 / 4)
