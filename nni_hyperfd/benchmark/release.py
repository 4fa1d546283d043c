"""How noisy a meta-feature is that leaves its owner with a guarantee of differential privacy."""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

DELTA = 1e-5
"""Delta of the guarantee."""
CLIP = 8.0
"""Largest norm of one image's vector. The extractor's last layer normalises vectors of 64 numbers, whose norm is then
about 8."""


def multiplier(epsilon: float, delta: float = DELTA) -> float:
    """The standard deviation of Gaussian noise that is (epsilon, delta)-private where one image changes a sum by 1.

    It is the smallest one: that of the analytic Gaussian mechanism (Balle and Wang, ICML 2018, theorem 8).

    Args:
        epsilon: greater than 0.
        delta: between 0 and 1.
    """

    def beyond(log_sigma: float) -> float:
        sigma = math.exp(log_sigma)
        near, far = 0.5 / sigma - epsilon * sigma, -0.5 / sigma - epsilon * sigma
        # exp(epsilon) overflows where the second term, their product, is small.
        return float(ndtr(near) - math.exp(epsilon + log_ndtr(far)) - delta)

    return math.exp(brentq(beyond, -20, 40, xtol=1e-12))


def deviation(epsilon: float, images: float) -> float:
    """The standard deviation of each number's noise: 2 C sigma / n, as one of n images changes their mean by 2 C / n.

    Args:
        epsilon: of the guarantee, greater than 0.
        images: n, the number of the data set's images, at least 1.
    """
    return 2 * CLIP * multiplier(epsilon) / images
