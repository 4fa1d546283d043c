from __future__ import annotations

import pytest
import torch

from nni_hyperfd.method import score


def test_score_is_the_inner_product_for_any_leading_dimensions():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(5, 64, generator=generator)
    meta_features = torch.randn(2, 3, 64, generator=generator)
    scores = score(embeddings, meta_features)
    assert scores.shape == (2, 3, 5)
    for i in range(2):
        for j in range(3):
            for c in range(5):
                expected = sum((embeddings[c, k] * meta_features[i, j, k]).item() for k in range(64))
                assert scores[i, j, c].item() == pytest.approx(expected, abs=1e-4)
    torch.testing.assert_close(score(embeddings, meta_features[0, 0]), scores[0, 0])
    assert score(embeddings[:0], meta_features[0, 0]).shape == (0,)
