"""Made-up tasks: what is known of a population is found again in its tasks; gaps and small tables."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import spearmanr

from nni_hyperfd.benchmark.population import Population, blur, centred, explained_share
from nni_hyperfd.benchmark.tables import TableError

INPUTS = np.linspace(0, 1, 40)[:, None]


@pytest.fixture(scope="module")
def known() -> Population:
    """Scores of variance 1 over 40 configurations: half of it is in the mean."""
    rng = np.random.default_rng(0)
    spread = ndtri((np.arange(40) + 0.5) / 40)
    mean = 0.5**0.5 * rng.permutation(spread)
    loadings = np.stack([np.sin(6 * INPUTS[:, 0]), 0.5 * np.cos(9 * INPUTS[:, 0])], axis=1)
    loadings -= loadings.mean(axis=0)  # what all configurations share, ranks cannot tell
    loadings *= (0.2 / np.square(loadings).sum(axis=1).mean()) ** 0.5
    return Population(mean, loadings, 0.3**0.5 * np.eye(40), (np.linspace(0, 1, 41),), telling=0.6)


def drawn(population: Population, tasks: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    performance, meta_features = zip(*(population.draw(rng) for _ in range(tasks)), strict=True)
    return np.array(performance), np.array(meta_features)


def covariance(population: Population) -> np.ndarray:
    return population.loadings @ population.loadings.T + population.root @ population.root.T


def correlation(matrix: np.ndarray) -> np.ndarray:
    scale = np.sqrt(np.diag(matrix))
    return matrix / np.outer(scale, scale)


def test_a_known_population_is_found_again(known: Population) -> None:
    performance, meta_features = drawn(known, 300)
    found = Population.fitted(performance, INPUTS, meta_features, np.random.default_rng(0))
    np.testing.assert_allclose(found.mean, known.mean, atol=0.2)
    assert np.corrcoef(found.mean, known.mean)[0, 1] > 0.99
    apart = correlation(covariance(found)) - correlation(covariance(known))
    assert np.sqrt(np.square(apart).mean()) < 0.1
    assert found.likeness == pytest.approx(known.likeness, abs=0.05)


def test_its_tasks_are_as_alike_as_the_tables(known: Population) -> None:
    """With few tasks, too, on average over tables: the spread of the means by chance is taken out of them."""
    found = []
    for seed in range(30):
        performance, meta_features = drawn(known, 4, seed)
        found.append(Population.fitted(performance, INPUTS, meta_features, np.random.default_rng(0)).likeness)
    assert np.mean(found) == pytest.approx(known.likeness, abs=0.06)
    ranks = spearmanr(drawn(known, 300)[0].T).statistic
    assert ranks[~np.eye(300, dtype=bool)].mean() == pytest.approx(known.likeness, abs=0.06)


@pytest.mark.parametrize("telling", [0.0, 0.3, 0.9])
def test_the_meta_feature_tells_as_much_as_it_should(known: Population, telling: float) -> None:
    population = Population(known.mean, known.loadings, known.root, known.marginals, telling)
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((3000, 2))
    meta_features = np.array([population._meta_feature(own, rng) for own in factors])
    targets = factors @ known.loadings.T
    guesses = meta_features @ np.linalg.lstsq(meta_features, targets)[0]
    explained = 1 - np.square(targets - guesses).sum() / np.square(targets).sum()
    assert explained == pytest.approx(telling, abs=0.03)


def test_the_blur_of_equal_factors_by_hand() -> None:
    # s^2 / (s^2 + noise^2) = 1 / 5 with s = 3
    assert blur(np.array([3.0, 3.0]), 0.2) == pytest.approx(6)


def test_what_the_others_foretell() -> None:
    rng = np.random.default_rng(0)
    meta_features = rng.standard_normal((30, 2))
    deviations = meta_features @ rng.standard_normal((2, 50))
    assert explained_share(meta_features, deviations) > 0.95
    noisy = deviations + rng.standard_normal((30, 50)) * deviations.std()
    assert 0.3 < explained_share(meta_features, noisy) < 0.6  # half of it can be known
    assert explained_share(rng.standard_normal((30, 2)), deviations) < 0.1
    unknown = np.where(rng.random((30, 2)) < 0.2, np.nan, meta_features)
    assert 0.2 < explained_share(unknown, deviations) < 0.95
    assert explained_share(np.full((30, 2), np.nan), deviations) == 0
    assert explained_share(np.zeros((30, 0)), deviations) == 0
    assert explained_share(meta_features[:4], deviations[:4]) == 0
    assert explained_share(meta_features, np.zeros((30, 50))) == 0


def test_centring_by_a_slow_version() -> None:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((6, 20)) + 3 * rng.standard_normal(20)
    scores[rng.random((6, 20)) < 0.3] = np.nan
    scores[:2] = rng.standard_normal((2, 20))
    mean, deviations = centred(scores)
    plain, chance = [], []
    for column, own in zip(scores.T, deviations.T, strict=True):
        measured = column[np.isfinite(column)]
        assert np.square(own).mean() == pytest.approx(np.var(measured, ddof=1))
        assert (own[np.isnan(column)] == 0).all()
        plain.append(measured.mean())
        chance.append(np.var(measured, ddof=1) / len(measured))
    assert mean.mean() == pytest.approx(np.mean(plain))
    assert mean.var() == pytest.approx(max(0, np.var(plain) - np.mean(chance)))


def test_gaps(known: Population) -> None:
    performance, meta_features = drawn(known, 200)
    performance[np.random.default_rng(2).random(performance.shape) < 0.2] = np.nan
    meta_features[::7] = np.nan
    found = Population.fitted(performance, INPUTS, meta_features, np.random.default_rng(0))
    assert np.corrcoef(found.mean, known.mean)[0, 1] > 0.98
    assert found.likeness == pytest.approx(known.likeness, abs=0.07)
    performance, _ = drawn(found, 5)
    assert np.isfinite(performance).all()


def test_two_tasks_and_two_configurations() -> None:
    performance = np.array([[0.1, 0.2], [0.4, 0.3], [0.5, 0.5], [np.nan, 0.1]])
    found = Population.fitted(performance, np.eye(2), np.ones((4, 1)), np.random.default_rng(0))
    assert len(found.marginals) == 2 and found.loadings.shape == (2, 1) and found.telling == 0
    drawn_performance, meta_features = drawn(found, 50)
    assert drawn_performance.min() >= 0.1 and drawn_performance.max() <= 0.4
    assert meta_features.shape == (50, 64)
    assert {tuple(row.argsort()) for row in drawn_performance} == {(0, 1), (1, 0)}


def test_tasks_that_agree_in_all_are_repeated() -> None:
    performance = np.array([[0.0, 0.0, 0.2, 0.9]] * 3)
    found = Population.fitted(performance, np.arange(4.0)[:, None], np.ones((3, 1)), np.random.default_rng(0))
    np.testing.assert_allclose(found.draw(np.random.default_rng(0))[0], [0, 0, 0.2, 0.9], atol=0.01)
    assert found.likeness == pytest.approx(1, abs=1e-6)


def test_too_little_is_refused() -> None:
    nan, rng = np.nan, np.random.default_rng(0)
    for performance in ([[0.1, 0.2], [0.3, 0.3]], [[0.1, 0.2], [nan, nan]], [[0.1, 0.2, 0.1], [0.3, 0.2, nan]]):
        rows = np.array(performance)
        with pytest.raises(TableError, match="two of their results for each configuration"):
            Population.fitted(rows, np.eye(rows.shape[1]), np.ones((2, 1)), rng)


def test_the_same_seed_gives_the_same_tasks(known: Population) -> None:
    performance, meta_features = drawn(known, 10)
    fitted = [Population.fitted(performance, INPUTS, meta_features, np.random.default_rng(3)) for _ in range(2)]
    for one, other in zip(*(drawn(population, 3) for population in fitted), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(drawn(known, 1, seed=1)[0], drawn(known, 1, seed=2)[0])
