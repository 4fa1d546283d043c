"""The platform's side of eq. 11, in every kind of search space."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from nni_hyperfd.method import ConfigurationEncoder, RankerSettings, TaskExperience, lambda_rank, score, update_encoder
from nni_hyperfd.method.learning import draws
from nni_hyperfd.space.encoded import EncodedConfigurations
from support.encoded import KINDS, bytes_of, configurations, distance

PAPER = RankerSettings()


def experience(kind="hpo", seed=0, n=20):
    """A task whose performance is linear in the vectors, architectures included, each task along its own direction."""
    encoded = configurations(kind, n, seed)
    direction = np.random.default_rng([seed, 1]).normal(size=encoded.width)
    meta_feature = torch.randn(64, generator=torch.Generator().manual_seed(100 + seed))
    return TaskExperience(encoded, torch.from_numpy(encoded.vectors @ direction).float(), meta_feature)


TASKS = [experience(seed=seed) for seed in range(3)]


def vectors(rows):
    return EncodedConfigurations(np.array(rows, dtype=np.float32))


def encoder(kind="hpo"):
    return ConfigurationEncoder.initial(configurations(kind, 1), seed=0)


def loss_of(network, task):
    with torch.no_grad():
        return lambda_rank(score(network(task.configurations), task.meta_feature), task.performance).item()


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_with_the_constants_of_the_paper(kind):
    tasks = [experience(kind, seed) for seed in range(3)]
    learned = update_encoder(encoder(kind), tasks[0], tasks[1:2], tasks[2:], PAPER, seed=0)
    assert sum(loss_of(learned, task) for task in tasks) < sum(loss_of(encoder(kind), task) for task in tasks)


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_separable_tasks_jointly(kind):
    settings = dataclasses.replace(PAPER, learning_rate=3e-3 if kind == "hpo" else 1e-2, batches=150)
    tasks = [experience(kind, seed, n=12) for seed in range(3)]
    before = encoder(kind)
    learned = update_encoder(before, tasks[0], tasks[1:2], tasks[2:], settings, seed=0)
    for task in tasks:
        # Dropout keeps a GIN from learning every list by heart.
        assert loss_of(learned, task) < (0.3 if kind == "hpo" else 0.6) * loss_of(encoder(kind), task)
    assert bytes_of(before) == bytes_of(encoder(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_bytes_and_the_global_random_state_is_left_alone(kind):
    tasks = [experience(kind, seed) for seed in range(3)]
    settings = dataclasses.replace(PAPER, batches=10)
    found = []
    for seed, elsewhere in ((3, 0), (3, 1), (4, 0)):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(elsewhere)  # what dropout would follow without a seed of its own
            state = torch.random.get_rng_state()
            found.append(bytes_of(update_encoder(encoder(kind), tasks[0], tasks[1:], [], settings, seed)))
            assert torch.equal(torch.random.get_rng_state(), state)
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("kind", ["nas", "joint"])
def test_dropout_while_it_learns_and_none_afterwards(kind):
    task, settings = experience(kind, n=2), dataclasses.replace(PAPER, batches=2, batch_size=1, learning_rate=1e-2)
    learned = update_encoder(encoder(kind), task, [], [], settings, seed=5)
    assert not any(module.training for module in learned.modules())
    assert torch.equal(learned(task.configurations), learned(task.configurations))

    def follow(orders, training):
        """A plain loop; the mask falls on the list's places, so each of the two possible orders is tried."""
        network = encoder(kind).train(training)
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(5)
            for order in orders:
                optimizer.zero_grad()
                scores = score(network(task.configurations[order]), task.meta_feature)
                lambda_rank(scores, task.performance[order]).backward()
                optimizer.step()
        return network

    orders = list(itertools.product([[0, 1], [1, 0]], repeat=2))
    assert min(distance(learned, follow(order, training=True)) for order in orders) < 1e-5
    assert min(distance(learned, follow(order, training=False)) for order in orders) > 1e-2


def test_an_encoder_that_is_given_while_it_trains_comes_back_ready():
    given = encoder("nas").train()
    learned = update_encoder(given, experience("nas"), [], [], dataclasses.replace(PAPER, batches=1), seed=0)
    assert given.training and not learned.training


def test_one_batch_is_one_step_of_adam():
    # Three configurations fit into one batch, whose order does not matter; Adam's first step is lr * sign(gradient).
    task = experience(n=3)
    settings = dataclasses.replace(PAPER, batches=1)
    learned = update_encoder(encoder(), task, [], [], settings, seed=0)
    start = encoder()
    gradients = torch.autograd.grad(
        lambda_rank(score(start(task.configurations), task.meta_feature), task.performance), list(start.parameters())
    )
    for old, new, gradient in zip(start.parameters(), learned.parameters(), gradients, strict=True):
        clear = gradient.abs() > 1e-4
        assert clear.any()
        torch.testing.assert_close((new - old)[clear], -1e-4 * gradient[clear].sign(), rtol=1e-2, atol=1e-7)


def test_long_lists_are_sampled_and_scaled_by_their_whole_task(monkeypatch):
    # Two batches of two out of three configurations: whatever is drawn, the result is one of nine. A pair of the
    # middle and the best one weighs less than its own scale would say, as the middle one has a gain of a third.
    performance = torch.tensor([0.0, math.log2(1 + 1 / 3), 1.0])
    task = TaskExperience(vectors(np.eye(3, 6)), performance, torch.ones(64))
    settings = dataclasses.replace(PAPER, batches=2, batch_size=1)
    monkeypatch.setattr(draws, "LONGEST_LIST", 2)

    def follow(samples):
        network = encoder()
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        for sample in samples:
            optimizer.zero_grad()
            scores = score(network(task.configurations[sample]), task.meta_feature)
            lambda_rank(scores, task.performance[sample], span=(0.0, 1.0)).backward()
            optimizer.step()
        return network

    pairs = [[0, 1], [0, 2], [1, 2]]
    possible = [follow((first, second)) for first in pairs for second in pairs]
    for seed in range(8):
        learned = update_encoder(encoder(), task, [], [], settings, seed)
        assert min(distance(learned, other) for other in possible) < 1e-5


def test_kinds_are_drawn_in_their_ratio():
    # Every kind has its own input dimension switched on, so the first layer's columns show who was trained on.
    def only(column, n=12):
        rows = np.zeros((n, 3))
        rows[:, column] = np.linspace(-1, 1, n)
        return TaskExperience(vectors(rows), torch.linspace(-1, 1, n), torch.ones(64))

    counts = [0, 0, 0]
    start = ConfigurationEncoder.initial(vectors(np.zeros((1, 3))), seed=0)
    settings = dataclasses.replace(PAPER, batches=1, batch_size=1)
    for seed in range(350):
        learned = update_encoder(start, only(0), [only(1)], [only(2), only(2)], settings, seed)
        change = (learned.mlp.layers[0].weight - start.mlp.layers[0].weight).abs().sum(dim=0)
        counts[int(change.argmax())] += 1
        assert (change > 0).sum() == 1
    # 5 : 1 : 1 of 350; standard deviations 8.5 and 6.5.
    assert abs(counts[0] - 250) < 40 and abs(counts[1] - 50) < 30 and abs(counts[2] - 50) < 30


def test_a_batch_is_the_mean_of_its_lists():
    # Two tasks at odds of 1 : 1 and two lists a batch: the same one twice, or both.
    settings = dataclasses.replace(PAPER, batches=1, batch_size=2, sampling=(1, 1, 0), learning_rate=1e-2)

    def stepped(tasks):
        network = encoder()
        losses = [lambda_rank(score(network(t.configurations), t.meta_feature), t.performance) for t in tasks]
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        (sum(losses) / len(losses)).backward()
        optimizer.step()
        return network

    one, two = TASKS[:2]
    possible = [stepped(tasks) for tasks in ([one, one], [two, two], [one, two])]
    drawn = [0, 0, 0]
    for seed in range(60):
        learned = update_encoder(encoder(), one, [two], [], settings, seed)
        apart = [distance(learned, other) for other in possible]
        assert min(apart) < 3e-2 * max(apart)  # where a gradient is rounding noise Adam's direction is arbitrary
        drawn[apart.index(min(apart))] += 1
    assert abs(drawn[2] - 30) < 16 and min(drawn) > 3  # standard deviations 3.9 and 3.4


@pytest.mark.parametrize("kind", KINDS)
def test_absent_kinds_and_lists_without_a_pair_are_skipped(kind):
    own, meta_feature = experience(kind), torch.ones(64)
    flat = TaskExperience(configurations(kind, 5, 7), torch.full((5,), 0.5), meta_feature)
    single = TaskExperience(configurations(kind, 1, 8), torch.tensor([0.5]), meta_feature)
    settings = dataclasses.replace(PAPER, batches=5)
    for current in (flat, None):
        untouched = update_encoder(encoder(kind), current, [single], [flat], settings, seed=0)
        assert bytes_of(untouched) == bytes_of(encoder(kind))
    with_useless = update_encoder(encoder(kind), None, [single, own, flat], [], settings, seed=0)
    assert bytes_of(with_useless) == bytes_of(update_encoder(encoder(kind), flat, [own], [single], settings, seed=0))
    assert bytes_of(with_useless) != bytes_of(encoder(kind))


def test_another_space_and_a_loss_that_is_not_finite_are_named():
    narrow = ConfigurationEncoder.initial(vectors(np.zeros((1, 5))), seed=0)
    for given in (narrow, encoder("nas"), encoder("joint")):
        with pytest.raises(ValueError, match="made for another search space"):
            update_encoder(given, TASKS[0], [], [], PAPER, seed=0)
    huge = dataclasses.replace(TASKS[0], meta_feature=torch.full((64,), 3e38))
    with pytest.raises(FloatingPointError, match="rank loss is not finite"):
        update_encoder(encoder(), huge, [], [], PAPER, seed=0)


def test_both_parts_of_a_joint_encoder_learn():
    learned = update_encoder(encoder("joint"), experience("joint"), [], [], dataclasses.replace(PAPER, batches=3), 0)
    before = dict(encoder("joint").named_parameters())
    for name, parameter in learned.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    assert isinstance(learned.mlp, nn.Module) and isinstance(learned.gin, nn.Module)
