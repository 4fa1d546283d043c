"""The ranking loss (eq. 6) and the triplet loss (eq. 7) of docs/method.md, and the NDCG that eq. 6 is built on."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

LN2 = math.log(2)


def lambda_rank(
    scores: Tensor, performance: Tensor, sigma: float = 1.0, span: tuple[float, float] | None = None
) -> Tensor:
    """Compute the LambdaLoss of one task's configurations, weighted by the change of NDCG (eq. 6, docs/method.md).

    Every pair with y_a > y_b costs |dNDCG(a, b)| log2(1 + exp(-sigma (s_a - s_b))), where dNDCG is the change of NDCG
    when a and b swap places in the predicted order. Gain 2^rel - 1, where rel is the performance scaled by `span` to
    [0, 1]; discount 1 / log2(1 + rank). Ties form no pair.

    Args:
        scores: float (n,), predicted scores.
        performance: float (n,), measured performances, finite, higher is better.
        sigma: steepness, > 0.
        span: lowest and highest performance of the task, needed when the list is a sample of it; by default those of
            the list.

    Returns:
        A scalar >= 0. Without a pair it is 0 and still has a gradient (of 0).

    Raises:
        ValueError: `scores` and `performance` are not two lists of the same length.
    """
    if scores.ndim != 1 or scores.shape != performance.shape:
        raise ValueError(
            "The ranking loss needs one score and one performance for each configuration, "
            f"got shapes {tuple(scores.shape)} and {tuple(performance.shape)}."
        )
    if _all_equal(performance):
        return 0.0 * scores.sum()
    lowest, highest = span or (performance.min(), performance.max())
    # expm1 instead of 2^rel - 1: exact also for the small gains of a batch from the bottom of its task.
    gain = torch.expm1(LN2 * ((performance - lowest) / (highest - lowest)))

    discount = _discounts(scores)
    discount_here = torch.empty_like(discount)
    discount_here[scores.detach().argsort(descending=True, stable=True)] = discount
    ideal = (gain.sort(descending=True).values * discount).sum()

    swap = _differences(gain).abs() * _differences(discount_here).abs() / ideal
    cost = softplus(-sigma * _differences(scores)) / LN2
    # A product rather than a selection of the pairs, which takes three times as long on lists of 200.
    return (torch.where(_differences(performance) > 0, swap, 0.0).to(cost.dtype) * cost).sum()


def ndcg(scores: Tensor, performance: Tensor) -> Tensor:
    """Compute the NDCG of the order in which the scores put a task's configurations; gain and discount as in eq. 6.

    Args:
        scores: float (n,), predicted scores.
        performance: float (n,), measured performances, finite, higher is better.

    Returns:
        A scalar in [0, 1]; 1 where all performances are equal, because then no order is wrong.
    """
    if _all_equal(performance):
        return torch.ones(())
    gain = torch.expm1(LN2 * (performance - performance.min()) / (performance.max() - performance.min()))
    predicted = gain[scores.argsort(descending=True, stable=True)]
    return predicted @ _discounts(gain) / (gain.sort(descending=True).values @ _discounts(gain))


def triplet(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Compute max(0, |a - p| - |a - n| + margin) with the Euclidean distance (eq. 7, docs/method.md).

    Args:
        anchor: float (..., 64), meta-features, each of an image batch of a data set.
        positive: float (..., 64), the same of another image batch of that data set.
        negative: float (..., 64), the same of another data set.
        margin: m of eq. 7, >= 0.

    Returns:
        float (...), >= 0. Where two meta-features coincide, their distance has gradient 0.
    """
    near = torch.linalg.vector_norm(anchor - positive, dim=-1)
    far = torch.linalg.vector_norm(anchor - negative, dim=-1)
    return relu(near - far + margin)


def _all_equal(performance: Tensor) -> bool:
    """Whether there are no two different performances, so that there is nothing to rank."""
    return len(performance) < 2 or bool((performance == performance[0]).all())


def _discounts(values: Tensor) -> Tensor:
    """1 / log2(1 + rank) for the ranks 1 to n of (n,) values."""
    return 1 / torch.log2(torch.arange(2, len(values) + 2, dtype=values.dtype, device=values.device))


def _differences(values: Tensor) -> Tensor:
    """(n,) -> (n, n) with [a, b] = values[a] - values[b]."""
    return values.unsqueeze(1) - values.unsqueeze(0)
