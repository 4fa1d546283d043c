from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from nni_hyperfd.belief.kernel import FeatureMap, Kernel


def random_kernel(width=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(width + 3, generator=generator, dtype=torch.float64) * 0.5
    centre = torch.full((width,), 0.4, dtype=torch.float64)
    return Kernel(draw[:width], draw[width] - 2, draw[width + 1] - 1, draw[width + 2], centre)


def points(n, width=3, seed=1):
    return torch.rand(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_covariance(kernel, a, b):
    """Matern-5/2 and linear part from their definitions, one pair at a time."""
    result = np.zeros((len(a), len(b)))
    for i, x in enumerate(a.tolist()):
        for j, z in enumerate(b.tolist()):
            scales = kernel.scales.exp().tolist()
            r = math.sqrt(sum(((p - q) / s) ** 2 for p, q, s in zip(x, z, scales, strict=True)))
            matern = (1 + math.sqrt(5) * r + 5 / 3 * r * r) * math.exp(-math.sqrt(5) * r)
            linear = (
                12
                * math.exp(kernel.linear)
                * sum((p - c) * (q - c) for p, q, c in zip(x, z, kernel.centre.tolist(), strict=True))
            )
            result[i, j] = matern + linear
    return result


def test_features_give_the_kernel_at_the_landmarks():
    kernel, x = random_kernel(), points(12)
    features = FeatureMap.of(kernel, x)(x)
    assert np.allclose(features @ features.T, slow_covariance(kernel, x, x), atol=1e-5)


def test_features_between_landmarks_are_the_nystroem_approximation():
    kernel, landmarks, x = random_kernel(), points(8, seed=2), points(5)
    features = FeatureMap.of(kernel, landmarks)(x)[:, :-3]
    across = kernel.stationary(x, landmarks)
    expected = across @ torch.linalg.inv(kernel.stationary(landmarks, landmarks)) @ across.T
    assert torch.allclose(features @ features.T, expected, atol=1e-5)


def test_equal_landmarks_count_once():
    landmarks = points(4)[[0, 0, 1, 1, 1, 2]]
    assert FeatureMap.of(random_kernel(), landmarks)(points(3)).shape == (3, 3 + 3)


def test_likelihood_against_scipy():
    kernel, x = random_kernel(), torch.stack([points(6), points(6, seed=3)])
    y = torch.randn(2, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    ours = kernel.negative_log_likelihood(x, y, torch.tensor([6, 4]))
    for task, n in enumerate((6, 4)):
        covariance = slow_covariance(kernel, x[task][:n], x[task][:n]) + math.exp(kernel.noise) * np.eye(n)
        density = multivariate_normal(np.zeros(n), math.exp(kernel.amplitude) * covariance)
        expected = -density.logpdf(y[task][:n].numpy()) - n / 2 * math.log(2 * math.pi)
        assert ours[task].item() == pytest.approx(expected)


def slow_fit(inputs, targets):
    """Adam by hand on numerical gradients of the marginal likelihood and the prior, from the documented start."""
    width, centre = inputs[0].shape[1], torch.cat(inputs).mean(dim=0)
    start = np.log([*(math.sqrt(width / 6) * np.ones(width)), 0.3 / width, 0.2, 1.0])

    def objective(packed):
        parts = [torch.tensor(part) for part in packed[width:]]
        kernel = Kernel(torch.tensor(packed[:width]), *parts, centre)
        total = ((packed - start) ** 2).sum() / (2 * 0.5**2)
        for x, y in zip(inputs, targets, strict=True):
            covariance = slow_covariance(kernel, x, x) + math.exp(kernel.noise) * np.eye(len(x))
            density = multivariate_normal(np.zeros(len(x)), math.exp(kernel.amplitude) * covariance)
            total -= density.logpdf(y.numpy())
        return total

    packed, first, second = start.copy(), 0.0, 0.0
    for step in range(1, 41):
        moves = 1e-5 * np.eye(len(packed))
        gradient = np.array([(objective(packed + move) - objective(packed - move)) / 2e-5 for move in moves])
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        packed = packed - 0.1 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return packed, centre


def test_fitting_against_adam_by_hand():
    inputs = [points(n, 2, seed=n) for n in (5, 3)]  # tasks need not have equally many results
    targets = [x[:, 0] ** 2 - x[:, 1] for x in inputs]
    kernel = Kernel.initial(2).fitted(inputs, targets, np.random.default_rng(0))
    expected, centre = slow_fit(inputs, targets)
    assert np.allclose(kernel.scales, expected[:2], atol=1e-4)
    assert np.allclose([kernel.linear, kernel.noise, kernel.amplitude], expected[2:], atol=1e-4)
    assert torch.allclose(kernel.centre, centre)


def test_fitting_draws_16_tasks_and_60_points_of_each_at_most():
    generator = torch.Generator().manual_seed(2)
    inputs = [points(70, seed=s) for s in range(20)]
    targets = [torch.randn(70, generator=generator, dtype=torch.float64) for _ in inputs]
    rng = np.random.default_rng(5)
    chosen = rng.permutation(20)[:16]
    rows = [(task, rng.permutation(70)[:60]) for task in chosen]
    drawn = Kernel.initial(3).fitted(inputs, targets, np.random.default_rng(5))
    same = Kernel.initial(3).fitted(
        [inputs[task][row] for task, row in rows], [targets[task][row] for task, row in rows], np.random.default_rng(9)
    )
    assert np.allclose(drawn.scales, same.scales) and np.isclose(drawn.noise, same.noise)


def test_fitting_finds_the_input_that_matters():
    rng = np.random.default_rng(0)
    inputs = [points(80, seed=s) for s in range(4)]
    noise = 0.05 * torch.randn(4, 80, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    targets = [torch.sin(6 * x[:, 0]) + e for x, e in zip(inputs, noise, strict=True)]
    kernel = Kernel.initial(3)
    for _ in range(3):
        kernel = kernel.fitted(inputs, targets, rng)
    assert kernel.scales[0] < kernel.scales[1:].min() - 0.5
    assert kernel.noise_variance < 0.1
