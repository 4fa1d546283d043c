"""Attacks on what a description tells, as pure functions; `hyperfd privacy audit` runs them on anybody's own data.

They face the vectors that are averaged, (N, k): with noise the projected and clipped ones, without the extractor's own.
`scale` is the noise's standard deviation, 0 for none.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from nni_hyperfd.privacy import mechanism
from nni_hyperfd.privacy.mechanism import Vectors

_SHRINKAGE = 1e-6  # of the covariances that the attacker estimates, so that they can be inverted


@dataclass(frozen=True)
class Audit:
    """What an attacker who knows all images but one finds out about that one, measured.

    Attributes:
        epsilon: 95 % lower confidence bound of the mechanism's epsilon.
        auc: probability that he ranks a description with the image above one without.
        runs: number of descriptions of each kind.
    """

    epsilon: float
    auc: float
    runs: int


def membership_auc(rows: Vectors, size: int, scale: float, runs: int, rng: np.random.Generator) -> float:
    """How well an attacker tells images of a data set from others of the same kind.

    He has half of the images, which are in no data set, and knows mean and covariance from them. Data sets of `size`
    images are drawn from the other half and described; he scores an image by the likelihood ratio of the description
    with and without it.

    Args:
        rows: (N, k), with N / 2 > size.
        size: number of images of a data set.
        scale: of the noise.
        runs: number of data sets.
        rng: draws everything.

    Returns:
        Probability that an image of the data set scores above one that is not in it; 0.5 is guessing.

    Raises:
        ValueError: there are too few images.
    """
    if len(rows) // 2 <= size:
        raise ValueError(f"{len(rows)} images are too few to draw data sets of {size} from half of them.")
    members, others = [], []
    for _ in range(runs):
        order = rng.permutation(len(rows))
        known, rest = rows[order[: len(rows) // 2]], rows[order[len(rows) // 2 :]]
        inside, outside = rest[:size], rest[size:]
        told = inside.mean(axis=0) + scale * rng.standard_normal(rows.shape[1])
        members.append(_likelihood_ratio(told, inside[0], known, size, scale))
        others.append(_likelihood_ratio(told, outside[0], known, size, scale))
    return auc(np.array(members), np.array(others))


def _likelihood_ratio(told: Vectors, image: Vectors, known: Vectors, size: int, scale: float) -> float:
    """Of a description (k,) with the image (k,) and without, for images like the known ones (n, k)."""
    mean = known.mean(axis=0)
    spread = np.cov(known.T) / size
    spread += np.eye(len(mean)) * (scale**2 + _SHRINKAGE * np.trace(spread) / len(mean))
    shift = (image - mean) / size
    direction = np.linalg.solve(spread, shift)
    return float((told - mean - shift / 2) @ direction)


def worst_case(radius: float, size: int, multiplier: float, runs: int, source: random.Random) -> Audit:
    """Audit the mechanism by a pair of data sets as far apart as one image can bring them.

    All images but one have the vector 0, as a crafted extractor can make them; the one has the longest vector, or its
    opposite. The attacker knows all of this but the last. Half of the runs choose his threshold, the others score it.

    Args:
        radius: C.
        size: number of units, one of the buckets.
        multiplier: of the noise.
        runs: number of descriptions of each of the two data sets, at least 4.
        source: of the noise.
    """
    scale = multiplier * mechanism.sensitivity(radius, size)
    scores = []
    for sign in (-1.0, 1.0):
        rows = np.zeros((size, 1))
        rows[0] = sign * 1e30
        center = mechanism.mean(mechanism.clipped(rows, radius))
        scores.append(np.array([float(mechanism.noised(center, scale, source)[0]) for _ in range(runs)]))
    return Audit(epsilon_bound(scores[1], scores[0]), auc(scores[1], scores[0]), runs)


def epsilon_bound(with_: NDArray[np.float64], without: NDArray[np.float64], delta: float = 1e-5) -> float:
    """The 95 % lower confidence bound of epsilon that scores of two neighbouring data sets prove.

    Args:
        with_: scores (m,) with the image; higher ones speak for it.
        without: scores (m,) without it.
        delta: of the guarantee.

    Returns:
        The bound by Clopper and Pearson for both error rates together; 0 if nothing is proven.
    """
    half = len(with_) // 2
    thresholds = np.quantile(np.concatenate([with_[:half], without[:half]]), np.linspace(0.02, 0.98, 49))
    best = max(thresholds, key=lambda threshold: _proven(with_[:half], without[:half], threshold, delta))
    return _proven(with_[half:], without[half:], best, delta)


def _proven(with_: NDArray[np.float64], without: NDArray[np.float64], threshold: float, delta: float) -> float:
    hits, alarms, runs = int((with_ > threshold).sum()), int((without > threshold).sum()), len(with_)
    bounds = []
    for right, wrong in ((hits, alarms), (runs - alarms, runs - hits)):  # the attacker may also bet on the absence
        least = stats.beta.ppf(0.025, right, runs - right + 1) if right else 0.0
        most = stats.beta.ppf(0.975, wrong + 1, runs - wrong) if wrong < runs else 1.0
        bounds.append(math.log(max(least - delta, 1e-300) / most))
    return max(0.0, *bounds)


def crafted_cosine(rows: Vectors, radius: float | None, scale: float, runs: int, rng: np.random.Generator) -> float:
    """What a crafted extractor brings, which answers with the vector of one chosen image, and with 0 for all others.

    Args:
        rows: (N, k), vectors of the images; the chosen one is drawn anew in each run.
        radius: to which vectors are clipped; None for no clipping.
        scale: of the noise.
        runs: number of chosen images.
        rng: draws everything.

    Returns:
        Mean cosine of what the platform receives and the image's true vector; 1 if it is seen in full.
    """
    cosines = []
    for place in rng.integers(len(rows), size=runs):
        wanted = rows[place] - rows.mean(axis=0)
        sent = np.zeros((len(rows), len(wanted)))
        sent[0] = 1e6 * wanted
        bounded = sent if radius is None else mechanism.clipped(sent, radius)
        told = bounded.mean(axis=0) + scale * rng.standard_normal(len(wanted))
        cosines.append(told @ wanted / (np.linalg.norm(told) * np.linalg.norm(wanted)))
    return float(np.mean(cosines))


def history_auc(rows: Vectors, size: int, scale: float, times: int, runs: int, rng: np.random.Generator) -> float:
    """How well an attacker tells which of two images is in a data set that is described again whenever it has grown.

    The data set grows by one image each time. The attacker knows all images but that one, and adds up what all
    descriptions say.

    Args:
        rows: (N, k), with N >= size + times + 1.
        size: number of images at the first description.
        scale: of the noise of each description.
        times: number of descriptions.
        runs: number of data sets.
        rng: draws everything.

    Returns:
        Probability that the right one of the two scores higher; 0.5 is guessing.
    """
    scores: list[list[float]] = [[], []]
    for _ in range(runs):
        drawn = rows[rng.choice(len(rows), size + times + 1, replace=False)]
        pair, known = drawn[:2], drawn[2:]
        for which in (0, 1):
            score = 0.0
            for count in range(size, size + times):
                others, direction = known[: count - 1].sum(axis=0), (pair[1] - pair[0]) / count
                told = (others + pair[which]) / count + scale * rng.standard_normal(rows.shape[1])
                score += float((told - (others + pair.mean(axis=0)) / count) @ direction)
            scores[which].append(score / max(float(direction @ direction), 1e-300))
    return auc(np.array(scores[1]), np.array(scores[0]))


def auc(high: NDArray[np.float64], low: NDArray[np.float64]) -> float:
    """Probability that a number of `high` is above one of `low`, ties counting half."""
    ranks = stats.rankdata(np.concatenate([high, low]))[: len(high)]
    return float((ranks.sum() - len(high) * (len(high) + 1) / 2) / (len(high) * len(low)))
