from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from nni_hyperfd.belief.search import Scales, Search


def belief(n=7, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=n), rng.normal(size=(n, 5)), 0.3


def scales(*values):
    kept = Scales()
    kept.logarithms.extend(float(np.log(value)) for value in values)
    return kept


def slow(mean, root, noise, grid, results, pending=()):
    """Joint Gaussian of targets + offset, one scale at a time. Returns per scale (log evidence, mean, variance)."""
    n, observed = len(mean), list(results)
    y = np.array(list(results.values()))
    out = []
    for scale in grid:
        covariance = root @ root.T + 100.0  # the offset is common to all
        known = observed + list(pending)
        noisy = covariance + noise * np.eye(n)
        r = (y - y.mean()) / scale - mean[observed]
        gain = covariance[:, observed] @ np.linalg.inv(noisy[np.ix_(observed, observed)])
        m = mean + gain @ r
        reduced = covariance - covariance[:, known] @ np.linalg.inv(noisy[np.ix_(known, known)]) @ covariance[known]
        evidence = -r @ np.linalg.inv(noisy[np.ix_(observed, observed)]) @ r / 2 - len(y) * np.log(scale)
        out.append((evidence, m, np.diag(reduced)))
    return out


@pytest.mark.parametrize("pending", [[], [5], [5, 1]])
def test_expected_improvement_against_integration(pending):
    mean, root, noise = belief()
    prior = scales(0.5, 2.0, 1.0)
    search = Search(mean, root, noise, prior)
    results = {2: 1.3, 4: 0.1}
    for index, result in results.items():
        search.observe(index, result)
    y = np.array([1.3, 0.1])
    grid = prior.grid(y)
    per_scale = slow(mean, root, noise, grid, results, pending)
    weights = np.exp([e for e, _, _ in per_scale])
    weights /= weights.sum()
    scores = search.scores(pending)
    for candidate in (0, 3):
        expected = 0.0
        for scale, weight, (_, m, v) in zip(grid, weights, per_scale, strict=True):
            best, sd = (1.3 - y.mean()) / scale, np.sqrt(v[candidate])
            density = norm(m[candidate], sd)
            top = best + 12 * sd + abs(m[candidate])
            value = quad(lambda g, b=best, d=density: (g - b) * d.pdf(g), best, top)[0]
            expected += weight * scale * value
        assert scores[candidate] == pytest.approx(expected, rel=1e-4)


def test_an_unknown_offset_makes_the_first_result_say_little():
    mean, root, noise = belief()
    search = Search(mean, root, noise, scales(1.0))
    before = search.expected()[0]
    search.observe(3, 1000.0)
    assert np.allclose(search.expected()[0], before, atol=0.1)


def test_results_are_conditioned_on_in_any_order_and_scale_of_offset():
    mean, root, noise = belief()
    told = []
    for order, shift in (([1, 2, 5], 0.0), ([5, 1, 2], 0.0), ([1, 2, 5], 1e4)):
        search = Search(mean, root, noise, scales(1.0, 1.2))
        for index in order:
            search.observe(index, np.sin(index) + shift)
        told.append(search.expected())
    for other in told[1:]:
        assert np.allclose(other[0], told[0][0], atol=1e-6) and np.allclose(other[1], told[0][1], atol=1e-6)


def test_a_pending_candidate_leaves_the_means_and_takes_its_own_doubt():
    mean, root, noise = belief()
    search = Search(mean, root, noise, scales(1.0))
    free, waiting = search.scores([]), search.scores([0])
    assert np.all(waiting <= free + 1e-12) and waiting[0] < free[0]


def test_scales_by_hand():
    kept = Scales()
    targets = np.array([-1.0, 0.0, 1.0])
    kept.add(5 + 3 * targets, targets)
    kept.add(np.ones(3), targets)
    kept.add(-2 + 0.5 * targets, targets)
    assert np.allclose(np.exp(kept.logarithms), [3, 0.5])
    grid = kept.grid(np.zeros(2))
    assert np.median(np.log(grid)) == pytest.approx(np.log([3, 0.5]).mean())
    assert np.all(np.diff(grid) > 0) and np.all(np.isfinite(Scales().grid(np.zeros(1))))
