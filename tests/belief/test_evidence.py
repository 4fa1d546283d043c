from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from nni_hyperfd.belief.evidence import PastTask, Picks, Whole, evidence
from nni_hyperfd.belief.scales import ScalePrior
from nni_hyperfd.belief.targets import normal_scores

K, NOISE, PRIOR = 4, 0.3, ScalePrior(np.log(0.2), 0.7)


def setting(n, seed=0):
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(np.cov(rng.normal(size=(K, 20))))
    return rng.normal(size=(n, K)), rng.normal(size=n), rng.normal(size=K), root


def posterior(seen, mean, root):
    """Mean and covariance of h from what was seen of it."""
    centre = np.linalg.solve(root, mean)
    deviation = seen.rows.T @ (seen.values - seen.rows @ centre)
    covariance = np.eye(K) - seen.rows.T @ seen.rows + np.outer(seen.spread, seen.spread)
    return mean + root @ deviation, root @ covariance @ root.T


def regression(features, targets, noise, mean, covariance):
    """Posterior of h by its precision, noise a matrix (n, n)."""
    precision = np.linalg.inv(covariance) + features.T @ np.linalg.inv(noise) @ features
    told = features.T @ np.linalg.inv(noise) @ targets + np.linalg.solve(covariance, mean)
    return np.linalg.solve(precision, told), np.linalg.inv(precision)


@pytest.mark.parametrize("n", [2, 4, 30])
def test_a_whole_task_against_bayesian_regression_on_its_normal_scores(n):
    features, performance, mean, root = setting(n)
    seen = Whole(features, performance).seen(mean, root, NOISE, PRIOR)
    expected = regression(features, normal_scores(performance), NOISE * np.eye(n), mean, root @ root.T)
    for ours, slow in zip(posterior(seen, mean, root), expected, strict=True):
        assert np.allclose(ours, slow)
    assert len(seen.rows) == min(n, K)


@pytest.mark.parametrize("n", [2, 4, 9])
def test_picks_against_a_mixture_of_regressions_over_the_scales(n):
    features, performance, mean, root = setting(n)
    covariance = root @ root.T
    seen = Picks(features, performance).seen(mean, root, NOISE, PRIOR)
    noise = NOISE * np.eye(n) + 100.0
    middle = max(PRIOR.middle, np.log(performance.std() / 2))
    scales = ScalePrior(middle, PRIOR.deviation).grid()
    weights, means = [], []
    for scale in scales:
        targets = (performance - performance.max()) / scale
        density = multivariate_normal(features @ mean, features @ covariance @ features.T + noise)
        weights.append(density.logpdf(targets) - n * np.log(scale))
        centre, left = regression(features, targets, noise, mean, covariance)
        means.append(centre)
    weights = np.exp(np.array(weights) - np.max(weights))
    weights /= weights.sum()
    expected = weights @ np.array(means)
    spread = np.einsum("s,si,sj->ij", weights, np.array(means) - expected, np.array(means) - expected)
    ours_mean, ours_covariance = posterior(seen, mean, root)
    assert np.allclose(ours_mean, expected) and np.allclose(ours_covariance, left + spread)
    assert np.isclose(seen.log_scale, weights @ np.log(scales))


def test_the_level_of_picks_says_nothing():
    features, performance, mean, root = setting(4)
    one, other = (Picks(features, performance + level).seen(mean, root, NOISE, PRIOR) for level in (0.0, 50.0))
    assert np.allclose(one.values, other.values) and np.allclose(one.spread, other.spread)


def test_picks_in_percent_do_not_shout():
    """What a hundred times larger results say stays within what results of the widest possible spread say."""
    features, performance, mean, root = setting(4)
    usual, percent = (Picks(features, k * performance).seen(mean, root, NOISE, PRIOR) for k in (0.3, 30.0))
    assert np.linalg.norm(percent.values) < 4 * np.linalg.norm(usual.values)


def test_a_task_is_whole_that_represents_the_space_and_has_20_results():
    inputs, performance = np.zeros((20, K), np.float32), np.arange(20.0)
    assert PastTask(inputs, performance).whole
    assert not PastTask(inputs[:19], performance[:19]).whole
    assert not PastTask(inputs, performance, sampled=False).whole
    kinds = [type(evidence(PastTask(inputs, performance, None, sampled), inputs)) for sampled in (True, False)]
    assert kinds == [Whole, Picks]
