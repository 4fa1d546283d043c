"""What a batch is made of, drawn at random."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from nni_hyperfd.method.settings import RankerSettings

LONGEST_LIST = 200
"""Maximum number of results of one task in a list, the paper's number of candidates: cost grows with its square."""


def list_of(results: int, generator: torch.Generator) -> Tensor:
    """Places of at most `LONGEST_LIST` of a task's results, drawn at random."""
    return torch.randperm(results, generator=generator)[:LONGEST_LIST]


def image_batches(features: Tensor, count: int, size: int, generator: torch.Generator) -> list[Tensor]:
    """`count` disjoint random batches of at most `size` images; too few images are repeated."""
    order = torch.randperm(len(features), generator=generator)
    if len(order) < count:
        order = order.repeat(count)
    return [features[indices] for indices in order[: count * size].tensor_split(count)]


def triplet_parts(
    data_sets: Sequence[Tensor],
    odds: Sequence[float],
    replay: Tensor | None,
    settings: RankerSettings,
    generator: torch.Generator,
) -> tuple[list[Tensor], list[Tensor]]:
    """A random triplet of eq. 7: anchor, positive, negative.

    Args:
        data_sets: image features (N >= 1, ...) of each.
        odds: of each data set to be the anchor's.
        replay: (k, hidden), further negatives that are meta-features already, or None.
        settings: the ranker's constants.
        generator: of the random numbers.

    Returns:
        Batches of images that are still to be made into meta-features, and the negative if it is a meta-feature
        already. Both are empty for a single data set, as there is no negative then.
    """
    past = 0 if replay is None else len(replay)
    if len(data_sets) + past == 1:
        return [], []
    drawn = _index(odds, generator)
    others = [*data_sets[:drawn], *data_sets[drawn + 1 :]]
    other = _index([1] * (len(others) + past), generator)
    batches = image_batches(data_sets[drawn], 2, settings.image_batch, generator)
    if replay is not None and other >= len(others):
        return batches, [replay[other - len(others)]]
    return batches + image_batches(others[other], 1, settings.image_batch, generator), []


def shared(share: float, count: int) -> list[float]:
    """`count` equal parts of a share; with none there is nothing to share."""
    return [share / count] * count if count else []


def times_drawn(odds: Sequence[float], count: int, generator: torch.Generator) -> Counter[int]:
    """How often each index came up in `count` independent draws in proportion to `odds`."""
    weights = torch.tensor(odds, dtype=torch.float64)
    return Counter(torch.multinomial(weights, count, replacement=True, generator=generator).tolist())


def _index(odds: Sequence[float], generator: torch.Generator) -> int:
    return int(torch.multinomial(torch.tensor(odds, dtype=torch.float64), 1, generator=generator))
