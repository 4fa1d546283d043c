from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from nni_hyperfd.belief.belief import Belief
from nni_hyperfd.belief.distances import distances
from nni_hyperfd.belief.evidence import Picks, Whole
from nni_hyperfd.belief.scales import ScalePrior
from nni_hyperfd.belief.targets import normal_scores

K = 4


def made_up(count, n=30, seed=0, apart=0.7):
    """Features and performances of tasks, and the vectors that they follow."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=K) + apart * rng.normal(size=(count, K))
    features = [rng.normal(size=(n, K)) for _ in range(count)]
    return features, [phi @ h + 0.2 * rng.normal(size=n) for phi, h in zip(features, vectors, strict=True)], vectors


def whole(count, n=30, seed=0):
    features, performances, _ = made_up(count, n, seed)
    return [Whole(phi, y) for phi, y in zip(features, performances, strict=True)]


def learned(tasks, amplitude=1.0, noise=0.04, apart=None):
    return Belief.learned(tasks, amplitude, noise, np.ones((len(tasks), len(tasks))) if apart is None else apart)


def slow_learned(features, targets, amplitude, noise, rounds=3, prior_tasks=3.0, mean_variance=5.0):
    """m and all h as one Gaussian vector, conditioned by its precision; then S."""
    count = len(features)
    isotropic = amplitude / 3 * np.eye(K)
    covariance = isotropic
    for _ in range(rounds):
        inverse = np.linalg.inv(covariance)
        precision, told = np.zeros((K * (count + 1),) * 2), np.zeros(K * (count + 1))
        precision[:K, :K] = inverse / mean_variance
        posteriors = []
        for t, (phi, y) in enumerate(zip(features, targets, strict=True), start=1):
            own = slice(K * t, K * (t + 1))
            precision[:K, :K] += inverse
            precision[:K, own] = precision[own, :K] = -inverse
            precision[own, own] = inverse + phi.T @ phi / noise
            told[own] = phi.T @ y / noise
            posteriors.append(np.linalg.inv(precision[own, own]))
        joint = np.linalg.inv(precision)
        mean, *vectors = (joint @ told).reshape(count + 1, K)
        scatter = sum(p + np.outer(h - mean, h - mean) for p, h in zip(posteriors, vectors, strict=True))
        covariance = (prior_tasks * isotropic + scatter) / (prior_tasks + count)
    return np.array(vectors), mean, joint[:K, :K], covariance


@pytest.mark.parametrize("count", [1, 2, 6])
@pytest.mark.parametrize("n", [3, 4, 5, 30])
def test_learning_against_one_joint_gaussian(count, n):
    features, performances, _ = made_up(count, n, apart=0.2)
    belief = learned([Whole(phi, y) for phi, y in zip(features, performances, strict=True)], 1.5)
    slow = slow_learned(features, [normal_scores(y) for y in performances], 1.5, 0.04)
    for ours, theirs in zip((belief.vectors, belief.mean, belief.doubt, belief.covariance), slow, strict=True):
        assert np.allclose(ours, theirs, atol=1e-8)


def test_the_belief_recovers_what_made_the_tasks():
    features, _, vectors = made_up(40, n=60)
    # Targets are normal scores: of standard normal features, those of phi h are phi h / |h|.
    belief = learned([Whole(phi, phi @ h) for phi, h in zip(features, vectors, strict=True)])
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.allclose(belief.vectors, directions, atol=0.3)


def test_a_task_that_contradicts_the_others_keeps_its_vector_and_says_nothing_of_the_rest():
    features, performances, _ = made_up(5, apart=0.2)
    tasks = [Whole(phi, y) for phi, y in zip(features, performances, strict=True)]
    contrary = Whole(features[0], -performances[0])
    without, beside = learned(tasks[1:]), learned([contrary, *tasks[1:]])
    assert np.allclose(beside.mean, without.mean) and np.allclose(beside.covariance, without.covariance)
    assert beside.vectors[0] @ beside.mean < 0 and len(beside.vectors) == 5


def test_picks_teach_what_all_tasks_share():
    """Four results of each of 60 tasks, the best of thirty; the levels are of no use."""
    features, performances, vectors = made_up(60)
    best = [np.argsort(y)[-4:] for y in performances]
    rng = np.random.default_rng(1)
    tasks = [Picks(phi[b], 3 * y[b] + rng.normal()) for phi, y, b in zip(features, performances, best, strict=True)]
    belief = learned(tasks)
    cosine = belief.mean @ vectors.mean(axis=0) / np.linalg.norm(belief.mean) / np.linalg.norm(vectors.mean(axis=0))
    assert cosine > 0.8
    assert abs(belief.scales.middle - np.log(3)) < 1.5


def test_beside_whole_tasks_picks_change_scales_and_certainty_little():
    tasks = whole(6)
    features, performances, _ = made_up(1, n=3, seed=9)
    alone, beside = learned(tasks), learned([*tasks, Picks(features[0], performances[0])])
    assert abs(beside.scales.middle - alone.scales.middle) < 0.3
    assert 0.7 * np.trace(alone.doubt) < np.trace(beside.doubt) < np.trace(alone.doubt)


def test_thousands_of_sparse_tasks_make_the_mean_certain_and_no_task():
    features, performances, _ = made_up(400, n=4)
    belief = learned([Picks(phi, y) for phi, y in zip(features, performances, strict=True)])
    few = learned([Picks(phi, y) for phi, y in zip(features[:4], performances[:4], strict=True)])
    assert np.trace(belief.doubt) < 0.05 * np.trace(few.doubt)
    assert np.trace(belief.covariance) > np.trace(belief.doubt)


def test_a_new_task_against_the_joint_gaussian():
    points = np.random.default_rng(1).normal(size=(4, 2))
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    belief = replace(learned(whole(3)), between=apart[:-1, :-1], trust=0.8, reach=0.9)
    weights, share = belief.leaning(apart[-1, :-1])
    correlation = 0.8 * np.exp(-(apart**2) / (2 * 0.9**2))
    np.fill_diagonal(correlation, 1.0)
    joint = np.kron(correlation, belief.covariance)
    past, new = slice(0, 3 * K), slice(3 * K, None)
    gain = joint[new, past] @ np.linalg.inv(joint[past, past])
    deviations = belief.vectors - belief.mean
    assert np.allclose(weights @ deviations, gain @ deviations.ravel())
    assert np.allclose(share * belief.covariance, joint[new, new] - gain @ joint[past, new])


@pytest.mark.parametrize("informative", [True, False])
def test_meta_features_are_trusted_where_they_foretell(informative):
    rng = np.random.default_rng(0)
    meta = rng.normal(size=(24, 3))
    vectors = 2 * meta @ rng.normal(size=(3, K))
    told = meta if informative else rng.normal(size=(24, 3))
    tasks = [Whole(phi := rng.normal(size=(40, K)), phi @ h + 0.2 * rng.normal(size=40)) for h in vectors]
    belief = learned(tasks, 4.0, apart=distances(list(told)))
    assert (belief.trust > 0) == informative


def test_distances_that_are_not_euclidean_still_give_a_prior():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(26, 3))
    rows[rng.random(rows.shape) < 0.4] = np.nan
    apart = distances(list(rows))
    belief = replace(learned(whole(25)), between=apart[:-1, :-1], trust=0.85, reach=1.5)
    weights, share = belief.leaning(apart[-1, :-1])
    assert np.isfinite(weights).all() and 0.05 <= share <= 1


def test_a_task_with_the_same_meta_feature_does_not_end_all_doubt():
    belief = replace(learned(whole(2)), between=np.array([[0.0, 9.0], [9.0, 0.0]]), trust=1.0, reach=1.0)
    weights, share = belief.leaning(np.array([0.0, 9.0]))
    assert np.allclose(weights, [1.0, 0.0], atol=1e-6) and share == 0.05


def slow_calibration(vectors, features, targets, apart):
    """Trust and reach by hand, one task left out at a time, on all results."""

    def error(t, trust, reach):
        others = [o for o in range(len(vectors)) if o != t]
        weights = np.zeros(len(others))
        if trust:
            among = trust * np.exp(-(apart[np.ix_(others, others)] ** 2) / (2 * reach**2))
            np.fill_diagonal(among, 1.0)
            weights = np.linalg.solve(among, trust * np.exp(-(apart[t, others] ** 2) / (2 * reach**2)))
        centre = vectors[others].sum(axis=0) / (len(others) + 0.2)
        prior = centre + sum(w * (vectors[o] - centre) for w, o in zip(weights, others, strict=True))
        return np.mean((features[t] @ prior - targets[t]) ** 2)

    found, most = (0.0, 1.0), 0.0
    for trust, reach in itertools.product((0.3, 0.6, 0.85), (0.4, 0.7, 1.5)):
        saved = np.array([error(t, 0.0, 1.0) - error(t, trust, reach) for t in range(len(vectors))])
        if (gain := saved.mean() - saved.std(ddof=1) / len(saved) ** 0.5) > most:
            found, most = (trust, reach), gain
    return found


def test_trust_and_reach_against_leave_one_out_by_hand():
    found = set()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        meta = rng.normal(size=(9, 2))
        vectors = meta @ rng.normal(size=(2, K)) + seed / 5 * rng.normal(size=(9, K))
        features = [rng.normal(size=(25, K)) for _ in vectors]
        performances = [phi @ h for phi, h in zip(features, vectors, strict=True)]
        apart = distances(list(meta))
        belief = learned([Whole(*one) for one in zip(features, performances, strict=True)], apart=apart)
        targets = [normal_scores(y) for y in performances]
        assert (belief.trust, belief.reach) == slow_calibration(belief.vectors, features, targets, apart)
        found.add((belief.trust, belief.reach))
    assert len(found) > 1


def test_fewer_than_three_whole_tasks_give_no_trust_whatever_picks_there_are():
    features, performances, _ = made_up(8, n=4)
    picks = [Picks(*one) for one in zip(features, performances, strict=True)]
    meta = np.random.default_rng(0).normal(size=(10, 2))
    assert learned([*whole(2), *picks], apart=distances(list(meta))).trust == 0
    assert learned(whole(1)).scales != ScalePrior(0.0, 1.0)
