"""The terms of eq. 11 for one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nni_hyperfd.method.losses import lambda_rank, triplet
from nni_hyperfd.method.settings import RankerSettings


def ranking_loss(scores: Tensor, performance: Tensor, whole: Tensor, settings: RankerSettings) -> Tensor:
    """The loss of a list's scores by `settings.loss`: eq. 6 or the squared error.

    Args:
        scores: (n,), of a list of one task's configurations.
        performance: (n,), of the same configurations.
        whole: all performances of the task.
        settings: the ranker's constants.

    Returns:
        A scalar >= 0.
    """
    if not rankable(whole):
        return 0.0 * scores.sum()  # nothing to rank, and no spread to standardise by
    if settings.loss == "mse":
        standardised = (performance - whole.mean()) / whole.std(correction=0).clamp(min=1e-12)
        return (scores - standardised).square().mean()
    return lambda_rank(scores, performance, settings.sigma, (whole.min().item(), whole.max().item()))


def triplet_loss(meta_features: Sequence[Tensor], settings: RankerSettings) -> Tensor:
    """Eq. 7 of anchor, positive and negative, (hidden,) each; 0 for none."""
    if not meta_features:
        return torch.zeros(())
    anchor, positive, negative = meta_features
    return triplet(anchor, positive, negative, settings.margin)


def meta_features(extractor: nn.Module, batches: Sequence[Tensor]) -> list[Tensor]:
    """The meta-feature (hidden,) of each batch of images, (N >= 1, 3, 3, D).

    Batches of the same size pass the extractor together, which saves its overhead.
    """
    sizes = [len(images) for images in batches]
    result: dict[int, Tensor] = {}
    for size in set(sizes):
        places = [place for place, other in enumerate(sizes) if other == size]
        result |= zip(places, extractor(torch.stack([batches[place] for place in places])), strict=True)
    return [result[place] for place in range(len(batches))]


def rankable(performance: Tensor) -> bool:
    """Whether there are two different performances."""
    return len(performance.unique()) > 1


def gradients(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradients by parameter; zeros for the parameters of a part that the extractor goes without."""
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in parameters.items()}


def check_finite(what: str, value: Tensor, batch: int) -> None:
    """Raise FloatingPointError, with the number of the batch, unless all numbers are finite."""
    if not value.isfinite().all():
        raise FloatingPointError(
            f"The {what} is not finite after {batch} batches of learning: the inputs of this task are too large, "
            "or the learning rate is too high."
        )
