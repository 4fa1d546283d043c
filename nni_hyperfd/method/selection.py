"""The choice of configurations to try from a ranking, half exploitation and half exploration (paper, Appendix A)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def explore_exploit(scores: Tensor, budget: int, exploration: float, seed: int) -> list[int]:
    """Choose which configurations to try: the best by score, best first, then some drawn uniformly from the rest.

    Args:
        scores: float (n,), finite, higher is better; equal scores are ordered at random by `seed`.
        budget: number of configurations to choose, >= 0; with more than n all n are chosen.
        exploration: share that is drawn at random, in [0, 1], rounded down: of b = min(budget, n), floor(b *
            exploration) are drawn and the others are the top of the ranking.
        seed: of the ties and the draw; torch's global random state is not used.

    Returns:
        Indices into `scores`, all different.

    Raises:
        ValueError: a score is not finite, or the budget or the exploration is outside its range.
    """
    if scores.ndim != 1 or not scores.isfinite().all():
        raise ValueError(f"Selection needs a list of finite scores, got shape {tuple(scores.shape)}: {scores}.")
    if budget < 0 or not 0 <= exploration <= 1:
        raise ValueError(
            f"Selection needs a budget >= 0 and an exploration between 0 and 1, got {budget} and {exploration}."
        )
    generator = torch.Generator().manual_seed(seed)
    budget = min(budget, len(scores))
    # The small addend undoes binary rounding: 0.29 * 100 is 28.999999999999996.
    explored = math.floor(budget * exploration + 1e-9)

    shuffled = torch.randperm(len(scores), generator=generator)
    order = shuffled[scores[shuffled].argsort(descending=True, stable=True)]
    top, rest = order[: budget - explored], order[budget - explored :]
    drawn = rest[torch.randperm(len(rest), generator=generator)[:explored]]
    chosen: list[int] = torch.cat([top, drawn]).tolist()
    return chosen
