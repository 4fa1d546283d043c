"""Classification losses against loops over their formulas, and what of the background they learn from."""

from __future__ import annotations

import math

import pytest
import torch
from mmdet.models.losses import CrossEntropyLoss
from retinaface.losses import AdditiveMarginLoss, SoftmaxFocalLoss, hard_sum

SCORES = [[2.0, -1.0], [-0.5, 0.25], [30.0, -30.0], [0.0, 0.0], [-3.0, 4.0]]
LABELS = [0, 0, 1, 1, 1]


def each(loss, weights: list[float] | None = None) -> list[float]:
    weights = None if weights is None else torch.tensor(weights)
    return loss(torch.tensor(SCORES), torch.tensor(LABELS), weights, reduction_override="none").flatten().tolist()


@pytest.mark.parametrize("margin", [0.0, 0.35, 1.0])
def test_margin_loss(margin: float) -> None:
    expected = [
        math.log1p(math.exp(scores[1 - label] - (scores[label] - margin)))
        for scores, label in zip(SCORES, LABELS, strict=True)
    ]
    assert each(AdditiveMarginLoss(margin)) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_without_a_margin_it_is_cross_entropy() -> None:
    assert each(AdditiveMarginLoss(0.0)) == each(CrossEntropyLoss())
    assert all(a > b for a, b in zip(each(AdditiveMarginLoss()), each(CrossEntropyLoss()), strict=True))


def test_focal_loss() -> None:
    """-alpha_t (1 - p_t)^2 log p_t, p the softmax, alpha 0.25 for faces and 0.75 for background."""
    expected = []
    for scores, label in zip(SCORES, LABELS, strict=True):
        odds = math.exp(scores[1 - label] - scores[label])
        p = 1 / (1 + odds)
        expected.append((0.75 if label else 0.25) * (1 - p) ** 2 * math.log1p(odds))
    assert each(SoftmaxFocalLoss()) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("kind", [AdditiveMarginLoss, SoftmaxFocalLoss])
def test_weights_multiply(kind: type) -> None:
    plain, weighted = each(kind()), each(kind(), [1.0, 0.0, 2.0, 0.5, 1.0])
    assert weighted == pytest.approx([x * w for x, w in zip(plain, [1, 0, 2, 0.5, 1], strict=True)])


@pytest.mark.parametrize(
    ("labels", "ratio", "expected"),
    [
        ([0, 1, 1, 0, 1, 1], 1, 1 + 4 + 6 + 5),
        ([0, 1, 1, 0, 1, 1], None, 1 + 2 + 3 + 4 + 5 + 6),
        ([0, 1, 1, 1, 1, 1], 2, 1 + 6 + 5),
        ([0, 1, 1, 1, 1, 1], 7, 21),  # there are five only
        ([1] * 6, 3, 0),
        ([0] * 6, 3, 21),
    ],
)
def test_the_hardest_background_counts(labels: list[int], ratio: int | None, expected: float) -> None:
    losses = torch.tensor([1.0, 2, 3, 4, 5, 6])
    assert hard_sum(losses, torch.tensor(labels), ratio) == expected


def test_nothing_sums_to_nothing() -> None:
    assert hard_sum(torch.zeros(0), torch.zeros(0, dtype=torch.long), 7) == 0
