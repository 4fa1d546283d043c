"""The noised mean of a data set's image vectors, as pure functions (eq. P1 to P4, docs/privacy.md).

A unit is what the guarantee protects: an image, or all images of a person or camera. Each unit has one vector of
bounded length, so one unit can move the mean of m units by at most 2 C / m, whatever network made the vectors.
"""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float64]

_SHORTER = 1 - 2.0**-40  # so that rounding cannot make a clipped vector longer than the radius
_STEPS = 1024  # grid steps in one standard deviation of the noise
_BUCKETS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)


def clipped(rows: NDArray[np.floating], radius: float) -> Vectors:
    """Shorten vectors to a Euclidean length of at most `radius` (eq. P1).

    Args:
        rows: (n, k). They may come from an untrusted network: a row with NaN or infinity becomes the zero vector, and
            numbers of any size are handled without overflow.
        radius: C > 0.

    Returns:
        float64 (n, k).
    """
    rows = np.asarray(rows, dtype=np.float64)
    rows = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0)
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    directions = rows / np.where(largest > 0, largest, 1.0)
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)  # in units of the row's largest entry
    limit = radius * _SHORTER
    with np.errstate(divide="ignore", over="ignore"):
        too_long = lengths > limit / largest
    return np.where(too_long, directions * (limit / np.maximum(lengths, 1.0)), rows)


def unit_means(rows: Vectors, units: Sequence[Hashable]) -> Vectors:
    """Mean vector of each unit, (m, k); the mean of clipped vectors is no longer than they are.

    Args:
        rows: (n, k), the clipped vectors of the images.
        units: the unit of each image.
    """
    places: dict[Hashable, list[int]] = {}
    for place, unit in enumerate(units):
        places.setdefault(unit, []).append(place)
    return np.array([mean(rows[own]) for own in places.values()]).reshape(-1, rows.shape[1])


def mean(rows: Vectors) -> Vectors:
    """The mean (k,) of vectors (n >= 1, k), correctly rounded: it does not depend on their order."""
    return np.array([math.fsum(column) for column in rows.T]) / len(rows)


def bucket(count: int) -> int:
    """The largest of 1, 1.5, 2, 3, 5, 7, 10, 15, ... (whole ones) that is at most `count`; 0 for 0.

    All sizes that are told or that the noise is scaled by are such buckets, so one unit more or less rarely shows.
    """
    if count < 1:
        return 0
    decade = 10 ** (len(str(count)) - 1)
    return max(int(step * decade) for step in _BUCKETS if step * decade <= count)


def sensitivity(radius: float, size: int) -> float:
    """How far one unit can move the mean (eq. P2): 2 C / `size`.

    It holds for a unit that is replaced, and for one that is added or removed, as long as `size` is at most the number
    of units before and after, as the bucket of both is.
    """
    return 2.0 * radius / size


def noise_multiplier(epsilon: float, delta: float) -> float:
    """Standard deviation of the noise, in units of the sensitivity, that makes one release (epsilon, delta)-private.

    The analytic Gaussian mechanism (Balle and Wang, 2018; eq. P3), by dp-accounting, whose import takes seconds.
    """
    from dp_accounting import get_sigma_gaussian

    return float(get_sigma_gaussian(epsilon, delta)) * (1 + 1e-9)  # it is found by bisection


def noised(values: Vectors, scale: float, source: random.Random | None = None) -> Vectors:
    """Values with independent Gaussian noise, on a grid that depends on `scale` alone (eq. P4).

    The last bits of a floating-point number would tell which values can have led to it (Mironov, 2012). So the noise is
    summed from four draws (Holohan and Braghin, 2021), and the result is rounded to a power of two that is about a
    thousandth of the noise.

    Args:
        values: (k,).
        scale: standard deviation of the noise, > 0.
        source: of the random numbers; by default the operating system's.
    """
    source = random.SystemRandom() if source is None else source
    noise = [scale * sum(source.normalvariate(0, 1) for _ in range(4)) / 2 for _ in values]
    step = 2.0 ** math.floor(math.log2(scale / _STEPS))
    rounded: Vectors = np.round((values + np.array(noise)) / step)
    return rounded * step
