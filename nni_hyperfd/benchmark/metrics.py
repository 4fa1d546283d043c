"""How good the picks of one task were. Performances are higher-is-better and finite."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln


def rank_percent(performance: np.ndarray, picks: list[int], rng: np.random.Generator) -> np.ndarray:
    """100 x (rank of the best pick so far) / n after each pick, (len(picks),); ties at random.

    performance: (n,), all candidates'. Random picks have (n + 1) / (k + 1) / n x 100 in expectation after k picks.
    """
    order = np.lexsort((rng.permutation(len(performance)), -performance))
    rank = np.empty(len(order))
    rank[order] = np.arange(1, len(order) + 1)
    return 100 * np.minimum.accumulate(rank[picks]) / len(performance)


def expected_best_of_random(performance: np.ndarray, k: int) -> float:
    """The exact expectation of the best of `k` >= 1 different candidates drawn at random (all, when k > n).

    The i-th smallest of n is the best of k with probability C(i - 1, k - 1) / C(n, k).
    """
    ascending = np.sort(performance)
    n = len(ascending)
    k = min(k, n)
    i = np.arange(k, n + 1)
    log_probability = _log_binomial(i - 1, k - 1) - _log_binomial(n, k)
    return float(ascending[k - 1 :] @ np.exp(log_probability))


def gain(performance: np.ndarray, picks: list[int]) -> float:
    """The best pick's performance above what as many random picks have in expectation."""
    return float(performance[picks].max() - expected_best_of_random(performance, len(picks)))


def ndcg(performance: np.ndarray, picks: list[int]) -> float:
    """NDCG of the picks in their order against the best ones in the best order, 0 to 1; 1 where all are equal.

    Gain 2^rel - 1 with rel = performance scaled to [0, 1] among the candidates, discount 1 / log2(1 + rank).
    """
    spread = np.ptp(performance)
    if spread == 0:
        return 1.0
    gains = 2 ** ((performance - performance.min()) / spread) - 1
    discount = 1 / np.log2(np.arange(2, len(picks) + 2))
    return float(gains[picks] @ discount / (np.sort(gains)[::-1][: len(picks)] @ discount))


def normalised_regret(performance: np.ndarray, picks: list[int]) -> float:
    """(best candidate - best pick) / (best candidate - worst candidate), 0 to 1; 0 where all are equal."""
    spread = np.ptp(performance)
    return float((performance.max() - performance[picks].max()) / spread) if spread else 0.0


def _log_binomial(n: np.ndarray | int, k: int) -> np.ndarray:
    return gammaln(np.asarray(n) + 1.0) - gammaln(k + 1.0) - gammaln(np.asarray(n) - k + 1.0)
