"""The terms of eq. 11."""

from __future__ import annotations

import math

import pytest
import torch

from nni_hyperfd.method import MetaFeatureExtractor, RankerSettings
from nni_hyperfd.method.learning import objective
from support.encoded import images

PAPER = RankerSettings()


def extractor():
    return MetaFeatureExtractor.initial(5, seed=0)


def test_ranking_loss_by_hand():
    """The worse of two is ranked first: exchanging them changes the NDCG by gain 1 times the step of the discounts."""
    scores, performance = torch.tensor([2.0, 1.0]), torch.tensor([0.3, 0.9])
    swap = 1 - 1 / math.log2(3)
    expected = swap * math.log2(1 + math.exp(1.0))
    loss = objective.ranking_loss(scores, performance, performance, PAPER)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    steep = RankerSettings(sigma=3.0)
    loss = objective.ranking_loss(scores, performance, performance, steep)
    assert loss.item() == pytest.approx(swap * math.log2(1 + math.exp(3.0)), rel=1e-5)


def test_a_list_is_scaled_by_its_whole_task():
    """Of results 0, 1 and 3 the list has the lower two: gains are 0 and 2^(1/3) - 1, which is also the ideal DCG."""
    scores, whole = torch.tensor([0.5, 0.0]), torch.tensor([0.0, 1.0, 3.0])
    loss = objective.ranking_loss(scores, whole[:2], whole, PAPER)
    assert loss.item() == pytest.approx((1 - 1 / math.log2(3)) * math.log2(1 + math.exp(0.5)), rel=1e-5)


def test_squared_error_by_hand():
    """The whole task has mean 2 and standard deviation sqrt(8/3) (divided by n)."""
    whole, settings = torch.tensor([0.0, 2.0, 4.0]), RankerSettings(loss="mse")
    loss = objective.ranking_loss(torch.tensor([1.0, 0.0]), whole[[2, 0]], whole, settings)
    unit = 2 / math.sqrt(8 / 3)
    assert loss.item() == pytest.approx(((1 - unit) ** 2 + unit**2) / 2, rel=1e-5)


@pytest.mark.parametrize("loss", ["rank", "mse"])
@pytest.mark.parametrize("whole", [[0.5], [0.5, 0.5, 0.5], []])
def test_without_two_different_results_there_is_no_loss_but_a_gradient(loss, whole):
    scores = torch.zeros(len(whole), requires_grad=True)
    value = objective.ranking_loss(scores, torch.tensor(whole), torch.tensor(whole), RankerSettings(loss=loss))
    assert value.item() == 0
    value.backward()
    assert scores.grad.tolist() == [0] * len(whole)


def test_triplet_loss_by_hand():
    points = [torch.tensor(point) for point in ([0.0, 0.0], [3.0, 4.0], [0.0, 5.2])]
    assert objective.triplet_loss(points, PAPER).item() == pytest.approx(5 - 5.2 + 0.5, rel=1e-5)
    assert objective.triplet_loss(points, RankerSettings(margin=0.1)).item() == 0
    assert objective.triplet_loss([], PAPER).item() == 0


@pytest.mark.parametrize("sizes", [[], [1], [3, 3], [5, 2, 5, 1, 2]])
def test_batches_pass_the_extractor_together_as_they_would_alone(sizes):
    batches = [images(size, seed=place) for place, size in enumerate(sizes)]
    with torch.no_grad():
        together = objective.meta_features(extractor(), batches)
        alone = [extractor()(batch) for batch in batches]
    assert len(together) == len(alone)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(together, alone, strict=True))


def test_rankable_needs_two_different_results():
    assert objective.rankable(torch.tensor([1.0, 1.0, 2.0]))
    for performance in ([], [1.0], [1.0, 1.0]):
        assert not objective.rankable(torch.tensor(performance))


def test_a_parameter_that_is_not_used_has_the_gradient_0():
    used, unused = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    (used * torch.tensor([2.0, 5.0])).sum().backward()
    gradients = objective.gradients({"used": used, "unused": unused})
    assert gradients["used"].tolist() == [2, 5] and gradients["unused"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_named_with_its_batch(value):
    objective.check_finite("rank loss", torch.zeros(3), 7)
    with pytest.raises(FloatingPointError, match="The rank loss is not finite after 7 batches"):
        objective.check_finite("rank loss", torch.tensor([0.0, value]), 7)
