"""The score of a configuration on a data set."""

from __future__ import annotations

from torch import Tensor


def score(embeddings: Tensor, meta_feature: Tensor) -> Tensor:
    """Compute the inner product of embeddings and a meta-feature (eq. 1, docs/method.md; eq. 5 with a transformed one).

    Args:
        embeddings: float (n, 64), configuration embeddings.
        meta_feature: float (..., 64), meta-features in the same version's space.

    Returns:
        float (..., n), higher is better.
    """
    return meta_feature @ embeddings.T
