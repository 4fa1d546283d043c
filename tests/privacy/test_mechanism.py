"""One unit moves the mean by at most 2 C / n, whatever network made the vectors."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy import stats

from nni_hyperfd.privacy import mechanism

RADIUS = 2.5
HUGE = np.finfo(np.float64).max
CRAFTED = {
    "ordinary": lambda rng, n: rng.normal(size=(n, 8)),
    "one image far from all others": lambda rng, n: np.where(np.arange(n)[:, None] == 3, 1e9, -1e-9) * np.ones(8),
    "huge": lambda rng, n: rng.choice([-HUGE, HUGE], size=(n, 8)),
    "not a number": lambda rng, n: np.where(rng.random((n, 8)) < 0.2, np.nan, 1e3),
    "infinite": lambda rng, n: np.where(rng.random((n, 8)) < 0.2, np.inf, -np.inf),
    "tiny": lambda rng, n: rng.choice([-5e-324, 5e-324], size=(n, 8)),
    "opposite": lambda rng, n: 1e30 * rng.choice([-1.0, 1.0], size=(n, 1)) * np.ones(8),
    "float32": lambda rng, n: rng.normal(size=(n, 8)).astype(np.float32) * np.float32(3e38),
}
"""What a network may make of images: n vectors."""


def outputs(rng: np.random.Generator, n: int):
    """Every image's vector from a crafted network of its own."""
    kinds = list(CRAFTED.values())
    with np.errstate(over="ignore"):
        return np.vstack([kinds[rng.integers(len(kinds))](rng, 4)[:1].astype(np.float64) for _ in range(n)])


def mean_of(rows, units) -> np.ndarray:
    return mechanism.mean(mechanism.unit_means(mechanism.clipped(rows, RADIUS), units))


@pytest.mark.parametrize("name", CRAFTED)
def test_clipped_vectors_are_finite_and_no_longer_than_the_radius(name):
    rng = np.random.default_rng(0)
    for n in (4, 50):
        rows = mechanism.clipped(CRAFTED[name](rng, n), RADIUS)
        assert np.isfinite(rows).all() and rows.shape == (n, 8)
        assert max(map(np.linalg.norm, rows)) <= RADIUS


def test_clipping_keeps_short_vectors_and_all_directions():
    rows = np.array([[0.3, -0.4], [0.0, 0.0], [3e200, 4e200], [np.nan, 1.0], [np.inf, 0.0]])
    short = mechanism.clipped(rows, RADIUS)
    assert short[0].tolist() == [0.3, -0.4] and short[1].tolist() == [0.0, 0.0]
    assert short[2] == pytest.approx([1.5, 2.0], rel=1e-9)
    assert short[3:].tolist() == [[0.0, 0.0], [0.0, 0.0]], "what is not finite says nothing"


@pytest.mark.parametrize("seed", range(40))
def test_an_image_that_is_replaced_added_or_removed_moves_the_mean_by_at_most_the_sensitivity(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 60))
    rows, other = outputs(rng, n), outputs(rng, 1)
    place = rng.integers(n)
    neighbours = {
        "replaced": np.vstack([rows[:place], other, rows[place + 1 :]]),
        "added": np.vstack([rows, other]),
        "removed": np.delete(rows, place, axis=0),
    }
    before = mean_of(rows, range(n))
    for name, after in neighbours.items():
        size = min(mechanism.bucket(n), mechanism.bucket(len(after)))
        moved = np.linalg.norm(mean_of(after, range(len(after))) - before)
        assert moved <= mechanism.sensitivity(RADIUS, size), name


def test_the_bound_is_reached():
    ones, minus = np.ones((10, 1)), -np.ones((1, 1))
    moved = mean_of(1e9 * ones, range(10)) - mean_of(1e9 * np.vstack([ones[1:], minus]), range(10))
    assert moved[0] == pytest.approx(mechanism.sensitivity(RADIUS, 10), rel=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_all_images_of_a_group_move_the_mean_as_one(seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 9, size=40)
    groups[:9] = range(9)
    rows = outputs(rng, 40)
    changed = rows.copy()
    changed[groups == 4] = 1e12 * rng.normal(size=8)
    moved = np.linalg.norm(mean_of(changed, groups) - mean_of(rows, groups))
    assert moved <= mechanism.sensitivity(RADIUS, 9)
    without = groups != 4
    moved = np.linalg.norm(mean_of(rows[without], groups[without]) - mean_of(rows, groups))
    assert moved <= mechanism.sensitivity(RADIUS, 7), "8 and 9 groups are in the bucket of 7"


def test_unit_means_by_hand():
    rows = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    assert mechanism.unit_means(rows, ["a", "b", "a"]).tolist() == [[2.0, 0.0], [0.0, 2.0]]
    assert mechanism.mean(np.array([[2.0, 0.0], [0.0, 2.0]])).tolist() == [1.0, 1.0]
    assert mechanism.unit_means(np.zeros((0, 2)), []).shape == (0, 2)


def test_the_mean_does_not_depend_on_the_order():
    rows = np.random.default_rng(0).normal(size=(1000, 8)) * 10.0 ** np.random.default_rng(1).integers(-8, 8, (1000, 1))
    for seed in range(5):
        assert mechanism.mean(np.random.default_rng(seed).permutation(rows)).tolist() == mechanism.mean(rows).tolist()


@pytest.mark.parametrize(
    ("count", "size"),
    [
        (0, 0),
        (1, 1),
        (2, 2),
        (4, 3),
        (9, 7),
        (10, 10),
        (14, 10),
        (15, 15),
        (29, 20),
        (100, 100),
        (256, 200),
        (999, 700),
    ],
)
def test_buckets(count, size):
    assert mechanism.bucket(count) == size


def test_buckets_grow_and_are_no_larger_than_what_they_stand_for():
    sizes = [mechanism.bucket(count) for count in range(1, 5000)]
    assert sizes == sorted(sizes)
    assert all(0.6 * count < size <= count for count, size in enumerate(sizes, start=1))


@pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-6), (1, 1e-5), (3, 1e-5), (8, 1e-3)])
def test_the_multiplier_is_that_of_the_analytic_gaussian_mechanism(epsilon, delta):
    sigma = mechanism.noise_multiplier(epsilon, delta)
    # Theorem 8 of Balle and Wang (2018), computed independently.
    upper = stats.norm.cdf(1 / (2 * sigma) - epsilon * sigma)
    lower = np.exp(epsilon) * stats.norm.cdf(-1 / (2 * sigma) - epsilon * sigma)
    assert upper - lower <= delta and upper - lower == pytest.approx(delta, rel=1e-4)


def test_noise_is_gaussian_with_its_scale_and_lies_on_the_grid():
    values = mechanism.noised(np.full(20_000, 0.7), 0.25, random.Random(0))
    assert stats.kstest((values - 0.7) / 0.25, "norm").pvalue > 0.01
    step = 2.0**-12
    assert 0.25 / 2048 <= step <= 0.25 / 1024 and (values / step == np.round(values / step)).all()


def test_noise_comes_from_the_operating_system():
    random.seed(0)
    np.random.seed(0)
    first = mechanism.noised(np.zeros(8), 1.0)
    random.seed(0)
    np.random.seed(0)
    assert not np.array_equal(mechanism.noised(np.zeros(8), 1.0), first)
