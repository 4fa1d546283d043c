"""Which of the scored configurations are tried (Appendix A of the paper, step 2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def explore_exploit(scores: Tensor, budget: int, exploration: float, seed: int) -> list[int]:
    """Indices to try, all different: first the best by score, best first, then some drawn uniformly from the rest.

    scores: (n,), finite, higher is better; equal scores are ordered at random by `seed`.
    budget: how many, >= 0; more than n gives all n. exploration: 0 to 1, the drawn share, rounded down: of
    b = min(budget, n), floor(b * exploration) are drawn and the others are the top of the ranking.
    """
    if scores.ndim != 1 or not scores.isfinite().all():
        raise ValueError(f"Selection needs a list of finite scores, got shape {tuple(scores.shape)}: {scores}.")
    if budget < 0 or not 0 <= exploration <= 1:
        raise ValueError(
            f"Selection needs a budget >= 0 and an exploration between 0 and 1, got {budget} and {exploration}."
        )
    generator = torch.Generator().manual_seed(seed)
    budget = min(budget, len(scores))
    # The tiny addend undoes binary rounding: 0.29 * 100 is 28.999999999999996.
    explored = math.floor(budget * exploration + 1e-9)

    shuffled = torch.randperm(len(scores), generator=generator)
    order = shuffled[scores[shuffled].argsort(descending=True, stable=True)]
    top, rest = order[: budget - explored], order[budget - explored :]
    drawn = rest[torch.randperm(len(rest), generator=generator)[:explored]]
    return torch.cat([top, drawn]).tolist()
