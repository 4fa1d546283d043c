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
    ours = kernel.negative_log_likelihood(x, y)
    for task in range(2):
        covariance = slow_covariance(kernel, x[task], x[task]) + math.exp(kernel.noise) * np.eye(6)
        density = multivariate_normal(np.zeros(6), math.exp(kernel.amplitude) * covariance)
        assert ours[task].item() == pytest.approx(-density.logpdf(y[task].numpy()) - 3 * math.log(2 * math.pi))


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
