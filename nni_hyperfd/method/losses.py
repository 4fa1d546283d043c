"""The ranking loss and the triplet loss, equations 6 and 7 of papers/README.md."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

LN2 = math.log(2)


def lambda_rank(
    scores: Tensor,
    performance: Tensor,
    sigma: float = 1.0,
    span: tuple[float, float] | None = None,
    top_relevance: float = 1.0,
) -> Tensor:
    """LambdaLoss with the change of NDCG as weight (eq. 6), for configurations of one task.

    scores: (n,), predicted. performance: (n,), measured, finite, higher is better. sigma: > 0.
    span: lowest and highest performance of the task, when the list is a sample of it; by default those of the list.
    With `relevance_span` in its place what lies below has relevance 0, as in AceNAS.
    top_relevance: > 0, the relevance of the highest performance (20 in AceNAS' HPO and NAS code, 1 here).
    Every pair with y_a > y_b costs |dNDCG(a, b)| log2(1 + exp(-sigma (s_a - s_b))), where dNDCG is what NDCG changes
    by when a and b swap places in the predicted order; gain 2^rel - 1 with rel = performance scaled by `span` to
    [0, top_relevance], discount 1 / log2(1 + rank). Ties make no pair. Returns a scalar >= 0; without a pair it is 0
    and still has a gradient (of 0).
    """
    if scores.ndim != 1 or scores.shape != performance.shape:
        raise ValueError(
            "The ranking loss needs one score and one performance for each configuration, "
            f"got shapes {tuple(scores.shape)} and {tuple(performance.shape)}."
        )
    if performance.unique().numel() < 2:
        return 0.0 * scores.sum()
    lowest, highest = span or (performance.min(), performance.max())
    # expm1 instead of 2^rel - 1: exact also for the small gains of a batch from the bottom of its task.
    # Clamped from below only: rounding must not turn the best two of a task into a tie.
    relevance = top_relevance * ((performance - lowest) / (highest - lowest)).clamp(min=0)
    gain = torch.expm1(LN2 * relevance)
    if not gain.any():
        return 0.0 * scores.sum()

    discount = _discounts(scores)
    discount_here = torch.empty_like(discount)
    discount_here[scores.detach().argsort(descending=True, stable=True)] = discount
    ideal = (gain.sort(descending=True).values * discount).sum()

    swap = _differences(gain).abs() * _differences(discount_here).abs() / ideal
    cost = softplus(-sigma * _differences(scores)) / LN2
    # A product rather than a selection of the pairs, which takes three times as long on lists of 200.
    return (torch.where(_differences(performance) > 0, swap, 0.0).to(cost.dtype) * cost).sum()


def ndcg(scores: Tensor, performance: Tensor) -> Tensor:
    """NDCG of the order that `scores` (n,) put a task's configurations in, 0 to 1; gain and discount as in eq. 6.

    performance: (n,), finite. Returns a scalar; 1 where all performances are equal, as no order is wrong then.
    """
    if performance.unique().numel() < 2:
        return torch.ones(())
    gain = torch.expm1(LN2 * (performance - performance.min()) / (performance.max() - performance.min()))
    predicted = gain[scores.argsort(descending=True, stable=True)]
    return predicted @ _discounts(gain) / (gain.sort(descending=True).values @ _discounts(gain))


def relevance_span(performance: Tensor, quantile: float = 0.2) -> tuple[float, float]:
    """The span of AceNAS' relevance: from the task's `quantile` of performance, 0 to below 1, to its maximum."""
    return performance.quantile(quantile).item(), performance.max().item()


def triplet(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """max(0, |a - p| - |a - n| + margin) with the plain Euclidean distance (eq. 7).

    anchor, positive: (..., 64), meta-features of two image batches of the same data set; negative: of another.
    Returns (...), >= 0. Where two meta-features coincide the distance has gradient 0.
    """
    near = torch.linalg.vector_norm(anchor - positive, dim=-1)
    far = torch.linalg.vector_norm(anchor - negative, dim=-1)
    return relu(near - far + margin)


def _discounts(values: Tensor) -> Tensor:
    """1 / log2(1 + rank) for the ranks 1 to n of (n,) values."""
    return 1 / torch.log2(torch.arange(2, len(values) + 2, dtype=values.dtype, device=values.device))


def _differences(values: Tensor) -> Tensor:
    """(n,) -> (n, n) with [a, b] = values[a] - values[b]."""
    return values.unsqueeze(1) - values.unsqueeze(0)
