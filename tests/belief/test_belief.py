from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from nni_hyperfd.belief.belief import Belief
from nni_hyperfd.belief.distances import distances


def tasks(count, k=4, n=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(k, generator=generator).double() + 0.7 * torch.randn(count, k, generator=generator).double()
    features = [torch.randn(n, k, generator=generator).double() for _ in range(count)]
    noise = [0.2 * torch.randn(n, generator=generator).double() for _ in range(count)]
    return features, [phi @ h + e for phi, h, e in zip(features, vectors, noise, strict=True)], vectors


def slow_em(features, targets, amplitude, noise, iterations=3, prior_tasks=3.0, mean_variance=5.0):
    """Textbook form: posterior of each vector by inverting the precision."""
    k, count = features[0].shape[1], len(features)
    isotropic = amplitude / 3 * np.eye(k)
    mean, covariance = np.zeros(k), isotropic
    for _ in range(iterations):
        vectors, posteriors = [], []
        for phi, y in zip(features, targets, strict=True):
            phi, y = phi.numpy(), y.numpy()
            posterior = np.linalg.inv(np.linalg.inv(covariance) + phi.T @ phi / noise)
            vectors.append(posterior @ (phi.T @ y / noise + np.linalg.inv(covariance) @ mean))
            posteriors.append(posterior)
        mean = np.sum(vectors, axis=0) / (count + 1 / mean_variance)
        scatter = sum(p + np.outer(h - mean, h - mean) for p, h in zip(posteriors, vectors, strict=True))
        covariance = (prior_tasks * isotropic + scatter) / (prior_tasks + count)
    return np.array(vectors), mean, covariance


@pytest.mark.parametrize("count", [1, 2, 6])
@pytest.mark.parametrize("n", [1, 3, 4, 5, 30])
def test_expectation_maximisation_against_its_textbook_form(count, n):
    features, targets, _ = tasks(count, n=n)
    belief = Belief.learned(features, targets, 1.5, 0.04, np.ones((count, count)), np.random.default_rng(0))
    ours_all = (belief.vectors, belief.mean, belief.covariance)
    for ours, slow in zip(ours_all, slow_em(features, targets, 1.5, 0.04), strict=True):
        assert np.allclose(ours, slow, atol=1e-8)


def test_the_belief_recovers_what_made_the_tasks():
    features, targets, vectors = tasks(40, n=60)
    belief = Belief.learned(features, targets, 1.0, 0.04, np.ones((40, 40)), np.random.default_rng(0))
    assert torch.allclose(belief.vectors, vectors, atol=0.25)
    assert torch.allclose(belief.covariance, 0.49 * torch.eye(4).double(), atol=0.3)


def test_a_new_task_against_the_joint_gaussian():
    features, targets, _ = tasks(3)
    learned = Belief.learned(features, targets, 1.0, 0.04, np.ones((3, 3)), np.random.default_rng(0))
    belief = Belief(learned.vectors, learned.mean, learned.covariance, 0.04, trust=0.8, reach=0.9)
    rng = np.random.default_rng(1)
    places = rng.random((4, 2))
    apart = np.linalg.norm(places[:, None] - places, axis=-1)
    mean, root, weights = belief.for_task(apart[3, :3], apart[:3, :3])
    between = 0.8 * np.exp(-(apart**2) / (2 * 0.9**2))
    np.fill_diagonal(between, 1)
    joint = np.kron(between, learned.covariance.numpy())  # of the four deviations, one after the other
    past, new = slice(0, 12), slice(12, 16)
    gain = joint[new, past] @ np.linalg.inv(joint[past, past])
    deviations = (learned.vectors - learned.mean).numpy().ravel()
    assert np.allclose(mean, learned.mean.numpy() + gain @ deviations)
    assert np.allclose(root @ root.T, joint[new, new] - gain @ joint[past, new])
    assert np.allclose(weights @ (learned.vectors - learned.mean).numpy(), gain @ deviations)


@pytest.mark.parametrize("informative", [True, False])
def test_meta_features_are_trusted_where_they_foretell(informative):
    generator = torch.Generator().manual_seed(3)
    kinds = torch.randn(2, 6, generator=generator).double() * 2
    kind = np.arange(12) % 2
    features = [torch.randn(40, 6, generator=generator).double() for _ in kind]
    noise = [0.2 * torch.randn(40, generator=generator).double() for _ in kind]
    targets = [phi @ kinds[c] + e for phi, c, e in zip(features, kind, noise, strict=True)]
    told = kind if informative else np.arange(12) // 2  # else pairs of different kinds seem alike
    distances = 1.4 * (told[:, None] != told)
    belief = Belief.learned(features, targets, 4.0, 0.04, distances, np.random.default_rng(0))
    assert (belief.trust > 0.5) == informative


def test_distances_that_are_not_euclidean_still_give_a_prior():
    """Outliers and a task without meta-feature: the correlations of eq. B9 are then not positive definite."""
    meta_features = np.zeros((26, 3))
    meta_features[range(3), range(3)] = 1.0
    apart = distances([*meta_features[:25], None, meta_features[25]])
    among = 0.85 * np.exp(-(apart[:-1, :-1] ** 2) / (2 * 1.5**2))
    np.fill_diagonal(among, 1.0)
    assert np.linalg.eigvalsh(among)[0] < 0
    features, targets, _ = tasks(26)
    learned = Belief.learned(features, targets, 1.0, 0.04, np.ones((26, 26)), np.random.default_rng(0))
    belief = Belief(learned.vectors, learned.mean, learned.covariance, 0.04, trust=0.85, reach=1.5)
    mean, root, weights = belief.for_task(apart[-1, :-1], apart[:-1, :-1])
    assert mean.isfinite().all() and root.isfinite().all() and np.isfinite(weights).all()


def test_a_task_with_the_same_meta_feature_does_not_end_all_doubt():
    features, targets, _ = tasks(2)
    learned = Belief.learned(features, targets, 1.0, 0.04, np.ones((2, 2)), np.random.default_rng(0))
    belief = Belief(learned.vectors, learned.mean, learned.covariance, 0.04, trust=0.99, reach=0.4)
    _, root, weights = belief.for_task(np.array([0.0, 9.0]), np.array([[0.0, 9.0], [9.0, 0.0]]))
    assert np.allclose(weights, [0.99, 0.0]) and torch.allclose(root @ root.T, 0.05 * learned.covariance)


def slow_calibration(vectors, features, targets, apart):
    """Leave-one-out from the definition: (gain less its standard error, trust, reach), the largest first."""
    count, options = len(vectors), [(0.0, 1.0), *itertools.product((0.3, 0.6, 0.85), (0.4, 0.7, 1.5))]
    errors = np.empty((len(options), count))
    for (row, (trust, reach)), t in itertools.product(enumerate(options), range(count)):
        others = [u for u in range(count) if u != t]
        centre = vectors[others].sum(axis=0) / (count - 1 + 1 / 5)
        correlation = trust * np.exp(-(apart**2) / (2 * reach**2))
        np.fill_diagonal(correlation, 1)
        weights = np.linalg.inv(correlation[np.ix_(others, others)]) @ correlation[others, t]
        prior = centre + weights @ (vectors[others] - centre)
        errors[row, t] = np.mean((features[t].numpy() @ prior - targets[t].numpy()) ** 2)
    gains = errors[0] - errors
    return sorted(
        (float(gain.mean() - gain.std(ddof=1) / np.sqrt(count)), *option)
        for gain, option in zip(gains, options, strict=True)
    )[::-1]


def test_trust_and_reach_against_leave_one_out_by_hand():
    chosen = set()
    for seed, telling in itertools.product(range(4), (0.0, 0.7, 1.0)):
        features, targets, vectors = tasks(8, seed=seed)
        rng = np.random.default_rng(seed)
        places = telling * vectors.numpy() + (1 - telling) * rng.normal(size=vectors.shape)
        apart = distances(list(places))
        belief = Belief.learned(features, targets, 1.0, 0.04, apart, rng)
        (most, trust, reach), *_ = slow_calibration(belief.vectors.numpy(), features, targets, apart)
        expected = (trust, reach) if most > 0 else (0.0, 1.0)
        assert (belief.trust, belief.reach) == expected
        chosen.add(expected)
    assert len(chosen) > 2 and (0.0, 1.0) in chosen
