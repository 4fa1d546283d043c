from __future__ import annotations

import math

import pytest
import torch

from nni_hyperfd.method import lambda_rank, ndcg, triplet
from nni_hyperfd.method.losses import relevance_span


def slow_ndcg(order, gains):
    """NDCG of an order (best place first), from its definition."""
    dcg = sum(gains[item] / math.log2(1 + place) for place, item in enumerate(order, start=1))
    ideal = sum(gain / math.log2(1 + place) for place, gain in enumerate(sorted(gains, reverse=True), start=1))
    return dcg / ideal


def slow_lambda_rank(scores, performance, sigma, span=None):
    """Eq. 6 with the change of NDCG measured by really swapping."""
    n = len(scores)
    low, high = span or (min(performance), max(performance))
    gains = [2 ** ((y - low) / (high - low)) - 1 for y in performance]
    order = sorted(range(n), key=lambda item: -scores[item])
    loss = 0.0
    for a in range(n):
        for b in range(n):
            if performance[a] > performance[b]:
                swapped = [b if item == a else a if item == b else item for item in order]
                change = abs(slow_ndcg(order, gains) - slow_ndcg(swapped, gains))
                loss += change * math.log2(1 + math.exp(-sigma * (scores[a] - scores[b])))
    return loss


@pytest.mark.parametrize("n", [2, 3, 9])
def test_ndcg_against_its_definition(n):
    scores, performance = random_list(n, seed=n)
    gains = [2 ** ((y - min(performance)) / (max(performance) - min(performance))).item() - 1 for y in performance]
    expected = slow_ndcg(scores.argsort(descending=True).tolist(), gains)
    assert ndcg(scores, performance).item() == pytest.approx(expected, rel=1e-9)
    assert ndcg(performance, performance).item() == pytest.approx(1)


def test_ndcg_of_equal_performances_is_1():
    assert ndcg(torch.randn(3), torch.ones(3)) == 1 == ndcg(torch.zeros(1), torch.ones(1))


def random_list(n, seed, ties=False):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(n, generator=generator, dtype=torch.float64)
    performance = torch.rand(n, generator=generator, dtype=torch.float64)
    return scores, (performance * 4).round() if ties else performance


@pytest.mark.parametrize("n", [2, 3, 4, 9])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("ties", [False, True])
def test_lambda_rank_against_loops(n, sigma, ties):
    scores, performance = random_list(n, seed=n, ties=ties)
    expected = slow_lambda_rank(scores.tolist(), performance.tolist(), sigma)
    assert lambda_rank(scores, performance, sigma).item() == pytest.approx(expected, rel=1e-9)


def test_lambda_rank_by_hand():
    # The better one (gain 1) is predicted second: swapping lifts NDCG from 1/log2(3) to 1.
    loss = lambda_rank(torch.tensor([0.0, 2.0]), torch.tensor([0.9, 0.4]), 1.0)
    assert loss.item() == pytest.approx((1 - 1 / math.log2(3)) * math.log2(1 + math.exp(2)), rel=1e-6)


def test_a_sample_of_a_task_is_scaled_by_the_task():
    scores, performance = random_list(4, seed=1)
    expected = slow_lambda_rank(scores.tolist(), performance.tolist(), 1.0, span=(-0.5, 2.0))
    assert lambda_rank(scores, performance, 1.0, span=(-0.5, 2.0)).item() == pytest.approx(expected, rel=1e-9)
    assert expected != pytest.approx(slow_lambda_rank(scores.tolist(), performance.tolist(), 1.0), rel=1e-2)


def test_lambda_rank_does_not_depend_on_scale_or_order_of_the_list():
    scores, performance = random_list(8, seed=5)
    loss = lambda_rank(scores, performance)
    torch.testing.assert_close(lambda_rank(scores, 100 * performance - 3), loss)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(lambda_rank(scores[order], performance[order]), loss)


def test_lambda_rank_has_the_gradient_of_the_pairs_with_fixed_weights():
    scores, performance = random_list(6, seed=2)
    scores.requires_grad_()
    (gradient,) = torch.autograd.grad(lambda_rank(scores, performance, 2.0), scores)
    for item in range(6):
        step = 1e-6  # too small to change the order, so the finite difference sees fixed weights too
        values = []
        for sign in (1, -1):
            moved = scores.tolist()
            moved[item] += sign * step
            values.append(slow_lambda_rank(moved, performance.tolist(), 2.0))
        assert gradient[item].item() == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-7)


@pytest.mark.parametrize("performance", [[], [0.7], [0.7, 0.7, 0.7]])
def test_without_a_pair_the_loss_is_zero_with_a_gradient(performance):
    scores = torch.zeros(len(performance), requires_grad=True)
    loss = lambda_rank(scores, torch.tensor(performance))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad.tolist() == [0.0] * len(performance)


def test_lambda_rank_at_extremes_is_finite():
    nearly_equal = lambda_rank(torch.zeros(3), torch.tensor([0.5, 0.5 + 6e-8, 0.5]))
    bottom_of_the_task = lambda_rank(torch.zeros(2), torch.tensor([1e-9, 2e-9]), span=(0.0, 1.0))
    far_apart = lambda_rank(torch.tensor([-1e4, 1e4]), torch.tensor([1.0, 0.0]))
    assert nearly_equal.isfinite() and nearly_equal > 0
    # The gains are 1 : 2 whatever their size.
    assert bottom_of_the_task.item() == pytest.approx((1 - 1 / math.log2(3)) / (2 + 1 / math.log2(3)), rel=1e-5)
    assert far_apart.item() == pytest.approx((1 - 1 / math.log2(3)) * 2e4 / math.log(2), rel=1e-5)


def test_rounding_makes_no_tie_of_the_best_two():
    """A span's upper end may be rounded to just below the task's best performance."""
    performance = torch.tensor([0.3, 1.0, 1.0 + 1e-6])
    assert lambda_rank(torch.tensor([0.0, 2.0, 1.0]), performance, span=(0.3, 1.0)) > 0
    pair = lambda_rank(torch.zeros(2), performance[1:], span=(0.3, 1.0))
    assert pair > 0


def test_a_score_that_is_nan_is_not_hidden():
    assert lambda_rank(torch.tensor([float("nan"), 0.0]), torch.tensor([1.0, 0.0])).isnan()
    assert lambda_rank(torch.tensor([float("nan"), 0.0]), torch.tensor([1.0, 1.0])).isnan()


def test_lambda_rank_names_lists_that_do_not_match():
    with pytest.raises(ValueError, match="one score and one performance"):
        lambda_rank(torch.zeros(3), torch.zeros(2))


def test_triplet_by_hand():
    anchor, positive = torch.tensor([0.0, 0.0]), torch.tensor([3.0, 4.0])
    assert triplet(anchor, positive, torch.tensor([0.0, 5.2]), 0.5).item() == pytest.approx(0.3, abs=1e-6)
    assert triplet(anchor, positive, torch.tensor([0.0, 6.0]), 0.5).item() == 0
    assert triplet(anchor, positive, positive, 0.5).item() == 0.5


def test_triplet_against_loops():
    a, p, n = torch.randn(3, 10, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    losses = triplet(a, p, n, 0.5)
    assert losses.shape == (10,)
    for i in range(10):
        expected = max(0.0, math.dist(a[i], p[i]) - math.dist(a[i], n[i]) + 0.5)
        assert losses[i].item() == pytest.approx(expected, abs=1e-12)


def test_triplet_of_coinciding_vectors_has_a_finite_gradient():
    anchor = torch.ones(4, requires_grad=True)
    loss = triplet(anchor, torch.ones(4), torch.ones(4), 0.5)
    loss.backward()
    assert loss.item() == 0.5
    assert anchor.grad.tolist() == [0.0] * 4


def test_relevance_scaling_against_the_definition():
    scores, performance = torch.tensor([0.3, -0.2, 0.1, 0.9, 0.0]), torch.tensor([0.5, 0.9, 0.1, 0.2, 0.8])
    low, high = relevance_span(performance, 0.25)
    assert (low, high) == (pytest.approx(0.2), pytest.approx(0.9))
    relevance = [20 * min(max((y - low) / (high - low), 0), 1) for y in performance.tolist()]
    gains = [2**r - 1 for r in relevance]
    order = scores.argsort(descending=True).tolist()
    discount = {item: 1 / math.log2(place + 2) for place, item in enumerate(order)}
    ideal = sum(g / math.log2(place + 2) for place, g in enumerate(sorted(gains, reverse=True)))
    expected = sum(
        abs(gains[a] - gains[b]) * abs(discount[a] - discount[b]) / ideal
        * math.log2(1 + math.exp(-(scores[a] - scores[b]).item()))
        for a in range(5) for b in range(5) if performance[a] > performance[b]
    )  # fmt: skip
    loss = lambda_rank(scores, performance, span=(low, high), top_relevance=20.0)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_a_list_from_below_the_span_costs_nothing():
    scores = torch.tensor([1.0, 2.0], requires_grad=True)
    loss = lambda_rank(scores, torch.tensor([0.1, 0.0]), span=(0.5, 1.0))
    loss.backward()
    assert loss.item() == 0 and scores.grad.tolist() == [0, 0]
