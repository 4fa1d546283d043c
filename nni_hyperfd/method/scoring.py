"""The score of a configuration on a data set."""

from __future__ import annotations

from torch import Tensor


def score(embeddings: Tensor, meta_feature: Tensor) -> Tensor:
    """Inner product of configuration embeddings and a meta-feature (eq. 1; eq. 5 with a transformed meta-feature).

    embeddings: (n, 64). meta_feature: (..., 64). Returns (..., n); higher is better.
    """
    return meta_feature @ embeddings.T
