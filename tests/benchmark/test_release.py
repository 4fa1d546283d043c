"""The noise of a private release: against the definition of differential privacy, by integration, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from nni_hyperfd.benchmark.release import CLIP, DELTA, deviation, multiplier


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0, 8.0, 30.0])
@pytest.mark.parametrize("delta", [1e-5, 1e-2])
def test_the_noise_is_just_enough(epsilon: float, delta: float) -> None:
    """Two data sets whose sums differ by 1: the largest excess of one's probabilities over exp(epsilon) the other's."""
    sigma = multiplier(epsilon, delta)
    # Where the density ratio exceeds exp(epsilon): x > 1/2 + epsilon sigma^2 for N(1, sigma^2) beside N(0, sigma^2).
    start = 0.5 + epsilon * sigma**2

    def excess(x: float) -> float:
        return norm.pdf(x, 1, sigma) - math.exp(epsilon + norm.logpdf(x, 0, sigma))

    found, _ = quad(excess, start, start + 40 * sigma, epsabs=1e-14, limit=500, points=[start + sigma])
    assert found == pytest.approx(delta, rel=1e-4)


def test_known_values() -> None:
    assert multiplier(1.0) == pytest.approx(3.7306, abs=1e-3)
    assert multiplier(1e4) > 0 and math.isfinite(multiplier(1e4))
    several = [multiplier(epsilon) for epsilon in (0.1, 1, 3, 8, 100)]
    assert several == sorted(several, reverse=True)


def test_one_image_more_in_a_larger_data_set_needs_less_noise() -> None:
    assert deviation(3.0, 100) == pytest.approx(2 * CLIP * multiplier(3.0, DELTA) / 100)
    assert deviation(3.0, 1000) == pytest.approx(deviation(3.0, 100) / 10)
    assert np.isfinite(deviation(3.0, 1))
