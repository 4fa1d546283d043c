from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from nni_hyperfd.belief.scales import ScalePrior
from nni_hyperfd.belief.search import Covariance, Search, log_unit_improvement, unit_improvement


def belief(n=7, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=n), rng.normal(size=(n, 5)), 0.3


def scales(*values):
    return ScalePrior.learned([float(np.log(value)) for value in values])


def slow(mean, root, noise, grid, results, pending=(), offset=100.0):
    """Joint Gaussian of targets + offset in 40 digits. Returns per scale (log evidence, mean, variance).

    offset: variance of the offset in what is asked for; that of the results is 100.
    """
    with mpmath.workdps(40):
        n, observed = len(mean), list(results)
        known = observed + list(pending)
        y = np.array(list(results.values()))
        targets = np.array((mpmath.matrix(root) * mpmath.matrix(root).T).tolist())
        covariance, noisy = targets + offset, targets + 100 + np.diag([mpmath.mpf(noise)] * n)

        def inverse(chosen):
            return np.array(mpmath.inverse(mpmath.matrix(noisy[np.ix_(chosen, chosen)])).tolist())

        precision = inverse(observed)
        reduced = np.diag(covariance - covariance[:, known] @ inverse(known) @ covariance[:, known].T)
        out = []
        for scale in grid:
            r = np.array([(mpmath.mpf(v) - y.mean()) / scale - m for v, m in zip(y, mean[observed], strict=True)])
            evidence = -r @ precision @ r / 2 - len(y) * mpmath.log(scale)
            means = mean + covariance[:, observed] @ (precision @ r)
            out.append((float(evidence), means.astype(float), reduced.astype(float)))
        return out


@pytest.mark.parametrize("pending", [[], [5], [5, 1]])
def test_expected_improvement_against_integration(pending):
    mean, root, noise = belief()
    prior = scales(0.5, 2.0, 1.0)
    search = Search(mean, Covariance.product(root, root), noise, prior)
    results = {2: 1.3, 4: 0.1}
    for index, result in results.items():
        search.observe(index, result)
    y = np.array([1.3, 0.1])
    grid = prior.grid()
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
        assert np.exp(scores[candidate]) == pytest.approx(expected, rel=1e-4)


def precise(gap):
    """log(phi(gap) + gap Phi(gap)) from its definition, in as many digits as the difference takes."""
    with mpmath.workdps(40 + 2 * max(0, int(mpmath.log10(1 + abs(gap)) * 2))):
        z = mpmath.mpf(float(gap))
        density = mpmath.exp(-z * z / 2) / mpmath.sqrt(2 * mpmath.pi)
        return mpmath.log(density + z * mpmath.erfc(-z / mpmath.sqrt(2)) / 2)


GAPS = np.array(
    [1e100, 1e3, 20, 5, 1, 0.1, 0, -0.1, -0.999, -1, -1.001, -2, -8, -20, -37, -39, -100, -999, -1000, -1001, -1e6]
)


def test_log_improvement_against_its_definition():
    ours = log_unit_improvement(GAPS)
    for gap, value in zip(GAPS, ours, strict=True):
        assert value == pytest.approx(float(precise(gap)), rel=1e-14)
    plain = GAPS * norm.cdf(GAPS) + norm.pdf(GAPS)
    assert (plain[GAPS <= -39] == 0).all() and np.isfinite(ours).all()
    assert np.allclose(log_unit_improvement(GAPS.reshape(3, 7)), ours.reshape(3, 7), rtol=0, atol=0)


def test_improvement_against_its_definition():
    gaps = GAPS[GAPS >= -37]
    for gap, value in zip(gaps, unit_improvement(gaps), strict=True):
        assert value == pytest.approx(float(mpmath.exp(precise(gap))), rel=1e-11)
    assert (np.abs(unit_improvement(GAPS[GAPS < -37])) < 1e-250).all()


def test_candidates_without_hope_are_told_apart_by_logarithms():
    """Of one certain candidate and others whose improvement is rounded to 0, and of such as are near to that."""
    mean = -np.arange(60.0)
    search = Search(mean, Covariance.product(np.eye(60), np.eye(60)), 1e-6, scales(1.0))
    for index, result in ((0, 100.0), (1, 99.0)):
        search.observe(index, result)
    scores = search.scores([])
    assert np.isfinite(scores).all() and (np.diff(scores[2:]) < 0).all() and scores[-1] < -460


@pytest.mark.parametrize("middle", [-1.0, -1e3, -1e8, -1e20])
def test_log_improvement_grows_with_the_gap_across_its_cases_and_far_beyond(middle):
    gaps = middle * np.linspace(1.01, 0.99, 1001)
    assert (np.diff(log_unit_improvement(gaps)) > 0).all()


def expected_improvement(per_scale, grid, results):
    """Precise logarithm of every candidate's expected improvement over the grid, and its plain form in floats."""
    y = np.array(list(results.values()))
    evidence = np.array([e for e, _, _ in per_scale])
    weights = [mpmath.exp(e - evidence.max()) for e in evidence]
    shares = [weight / sum(weights) for weight in weights]
    logarithms, plain = [], []
    for candidate in range(len(per_scale[0][1])):
        terms, sums = [], 0.0
        for scale, share, (_, m, v) in zip(grid, shares, per_scale, strict=True):
            deviation = np.sqrt(v[candidate])
            gap = (m[candidate] - (y.max() - y.mean()) / scale) / deviation
            terms.append(share * scale * deviation * mpmath.exp(precise(gap)))
            sums += float(share) * scale * deviation * (gap * norm.cdf(gap) + norm.pdf(gap))
        logarithms.append(float(mpmath.log(sum(terms))))
        plain.append(sums)
    return np.array(logarithms), np.array(plain)


@pytest.mark.parametrize("pending", [[], [5, 1]])
def test_far_behind_the_best_result_candidates_still_have_an_order(pending):
    """Eight nearly equal results and one that nothing explains: no other candidate is likely to reach it."""
    rng = np.random.default_rng(4)
    mean, root, noise, prior = rng.normal(size=20), 0.02 * rng.normal(size=(20, 5)), 1e-3, scales(1.0, 1.1)
    search = Search(mean, Covariance.product(root, root), noise, prior)
    results = {index: float(mean[index]) for index in range(10, 18)} | {19: 30.0}
    for index, result in results.items():
        search.observe(index, result)
    grid = prior.grid()
    logarithms, plain = expected_improvement(slow(mean, root, noise, grid, results, pending), grid, results)
    scores = search.scores(pending)
    assert (plain == 0).all() and (logarithms < -1000).all()
    assert np.allclose(scores, logarithms, rtol=1e-8)
    assert scores.argsort().tolist() == logarithms.argsort().tolist() and len(set(scores)) == 20


def test_the_pick_is_that_of_expected_improvement():
    for seed in range(12):
        mean, root, noise = belief(n=15, seed=seed)
        prior, search = (
            scales(0.5, 2.0, 1.0),
            Search(mean, Covariance.product(root, root), noise, scales(0.5, 2.0, 1.0)),
        )
        results = {index: float(np.sin(seed + index)) for index in (3, 8, 12)}
        for index, result in results.items():
            search.observe(index, result)
        grid = prior.grid()
        logarithms, plain = expected_improvement(slow(mean, root, noise, grid, results), grid, results)
        scores = search.scores([])
        assert scores.argmax() == plain.argmax()
        assert np.allclose(scores, logarithms, atol=1e-7) and np.allclose(np.exp(scores), plain, rtol=1e-7)


def test_what_is_expected_is_the_mixture_over_the_scales():
    mean, root, noise = belief()
    prior, results = scales(0.2, 5.0), {2: 1.3, 4: 0.1, 5: -0.7}
    search = Search(mean, Covariance.product(root, root), noise, prior)
    for index, result in results.items():
        search.observe(index, result)
    per_scale = slow(mean, root, noise, prior.grid(), results, offset=0.0)
    weights = np.exp([e for e, _, _ in per_scale])
    weights /= weights.sum()
    means, variances = np.array([m for _, m, _ in per_scale]), np.array([v for _, _, v in per_scale])
    expected = weights @ means
    ours, deviation = search.expected()
    assert weights.max() < 0.6 and np.allclose(ours, expected)
    assert np.allclose(deviation**2, weights @ (variances + means**2) - expected**2)


@pytest.mark.parametrize("pending", [[], [5], [5, 1]])
def test_the_first_pick_has_the_highest_upper_confidence_bound(pending):
    mean, root, noise = belief()
    covariance = root @ root.T
    among = covariance[np.ix_(pending, pending)] + noise * np.eye(len(pending))
    left = covariance - covariance[:, pending] @ np.linalg.inv(among) @ covariance[pending]
    assert np.allclose(
        Search(mean, Covariance.product(root, root), noise, None).scores(pending), mean + 0.3 * np.sqrt(np.diag(left))
    )


def test_an_unknown_offset_makes_the_first_result_say_little():
    mean, root, noise = belief()
    search = Search(mean, Covariance.product(root, root), noise, scales(1.0))
    before = search.expected()[0]
    search.observe(3, 1000.0)
    assert np.allclose(search.expected()[0], before, atol=0.1)


def test_results_are_conditioned_on_in_any_order_and_scale_of_offset():
    mean, root, noise = belief()
    told = []
    for order, shift in (([1, 2, 5], 0.0), ([5, 1, 2], 0.0), ([1, 2, 5], 1e4)):
        search = Search(mean, Covariance.product(root, root), noise, scales(1.0, 1.2))
        for index in order:
            search.observe(index, np.sin(index) + shift)
        told.append(search.expected())
    for other in told[1:]:
        assert np.allclose(other[0], told[0][0], atol=1e-6) and np.allclose(other[1], told[0][1], atol=1e-6)


def test_a_pending_candidate_leaves_the_means_and_takes_its_own_doubt():
    mean, root, noise = belief()
    search = Search(mean, Covariance.product(root, root), noise, scales(1.0))
    free, waiting = search.scores([]), search.scores([0])
    assert np.all(waiting <= free + 1e-12) and waiting[0] < free[0]


def test_without_past_tasks_the_scales_surround_the_range_of_the_results():
    mean, root, noise = belief()
    results = {0: 3.0, 1: 1.0, 2: 7.0}
    searches = [
        Search(mean, Covariance.product(root, root), noise, prior)
        for prior in (None, ScalePrior(float(np.log(6)), 1.0))
    ]
    for search in searches:
        for index, result in results.items():
            search.observe(index, result)
    assert np.array_equal(searches[0].scores([]), searches[1].scores([]))


def test_outer_candidates_come_last_until_two_results_can_be_compared():
    mean, root, noise = belief()
    outer = np.arange(7) >= 3
    search = Search(mean, Covariance.product(root, root), noise, scales(1.0), outer)
    free = Search(mean, Covariance.product(root, root), noise, scales(1.0))
    for index, result in [(2, 1.0), (0, 2.0)]:
        held, plain = search.scores([1]), free.scores([1])
        assert held[outer].max() < held[~outer].min() and np.array_equal(held[~outer], plain[~outer])
        assert np.array_equal(np.argsort(held[outer]), np.argsort(plain[outer]))
        search.observe(index, result)
        free.observe(index, result)
    assert np.array_equal(search.scores([1]), free.scores([1]))
