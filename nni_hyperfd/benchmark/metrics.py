"""How good the picks of one task were. Performances are finite, higher is better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln


def rank_percent(
    performance: NDArray[np.float64], picks: Sequence[int], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Rank% after each pick: 100 x (rank of the best pick so far) / n.

    Random picks have (n + 1) / (k + 1) / n x 100 in expectation after k picks.

    Args:
        performance: (n,), of all candidates.
        picks: (k,), indices of candidates in the order in which they were picked.
        rng: breaks ties.

    Returns:
        (k,), in (0, 100].
    """
    order = np.lexsort((rng.permutation(len(performance)), -performance))
    rank = np.empty(len(order))
    rank[order] = np.arange(1, len(order) + 1)
    percent: NDArray[np.float64] = 100 * np.minimum.accumulate(rank[list(picks)]) / len(performance)
    return percent


def expected_best_of_random(performance: NDArray[np.float64], k: int) -> float:
    """The exact expectation of the best of `k` different candidates drawn at random.

    The i-th smallest of n is the best of k with probability C(i - 1, k - 1) / C(n, k).

    Args:
        performance: (n,), of all candidates.
        k: at least 1; all candidates are drawn if it is above n.
    """
    ascending = np.sort(performance)
    n = len(ascending)
    k = min(k, n)
    i = np.arange(k, n + 1)
    log_probability = _log_binomial(i - 1, k - 1) - _log_binomial(n, k)
    return float(ascending[k - 1 :] @ np.exp(log_probability))


def gain(performance: NDArray[np.float64], picks: Sequence[int]) -> float:
    """The best pick's performance minus what as many random picks have in expectation."""
    return float(performance[list(picks)].max() - expected_best_of_random(performance, len(picks)))


def ndcg(performance: NDArray[np.float64], picks: Sequence[int]) -> float:
    """NDCG of the picks in their order, relative to the best candidates in the best order.

    The gain is 2^rel - 1 with rel = performance scaled to [0, 1] among the candidates; the discount is
    1 / log2(1 + rank).

    Returns:
        A value in [0, 1]; 1 where all candidates are equal.
    """
    spread = np.ptp(performance)
    if spread == 0:
        return 1.0
    gains = 2 ** ((performance - performance.min()) / spread) - 1
    discount = 1 / np.log2(np.arange(2, len(picks) + 2))
    return float(gains[list(picks)] @ discount / (np.sort(gains)[::-1][: len(picks)] @ discount))


def normalised_regret(performance: NDArray[np.float64], picks: Sequence[int]) -> float:
    """(best candidate - best pick) / (best candidate - worst candidate).

    Returns:
        A value in [0, 1]; 0 where all candidates are equal.
    """
    spread = np.ptp(performance)
    return float((performance.max() - performance[list(picks)].max()) / spread) if spread else 0.0


def _log_binomial(n: NDArray[np.int64] | int, k: int) -> NDArray[np.float64]:
    log: NDArray[np.float64] = gammaln(np.asarray(n) + 1.0) - gammaln(k + 1.0) - gammaln(np.asarray(n) - k + 1.0)
    return log
