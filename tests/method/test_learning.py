from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from sklearn.metrics import ndcg_score

from nni_hyperfd.method import (
    ClientTask,
    MetaFeatureExtractor,
    MLPEncoder,
    OfflineTask,
    RankerSettings,
    TaskExperience,
    WeightsError,
    lambda_rank,
    learning,
    score,
    triplet,
    update_encoder,
    update_extractor,
    warm_up,
    weights,
)

PAPER = RankerSettings()
DIM = 5
NAN = float("nan")


def images(count, shift=0.0, seed=0):
    """Images whose first feature lies around `shift`, a fifth of the groups empty."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 3, 3, DIM, generator=generator)
    features[..., 0] += shift
    features[torch.rand(count, 3, 3, generator=generator) < 0.2] = NAN
    return features


def client_task(count=40, offline=2, configurations=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(configurations, 64, generator=generator)
    return ClientTask(
        features=images(count),
        counts=torch.tensor([count, 3.0 * count]),
        embeddings=embeddings,
        performance=embeddings[:, 0].clone(),
        offline_features=[images(30, shift=2.0 * (i + 1), seed=i + 1) for i in range(offline)],
        offline_counts=[torch.tensor([900.0, 4000.0 + i]) for i in range(offline)],
    )


def extractor():
    return MetaFeatureExtractor.initial(DIM, seed=0)


def uniform_importance(value):
    return {name: torch.full_like(parameter, value) for name, parameter in extractor().named_parameters()}


def rank_loss(network, task):
    with torch.no_grad():
        return lambda_rank(score(task.embeddings, network(task.features, task.counts)), task.performance).item()


def distance(first, second):
    one, two = dict(first.named_parameters()), dict(second.named_parameters())
    return math.sqrt(sum(((one[name] - two[name]) ** 2).sum().item() for name in one))


# ------------------------------------------------------------------------------------------ the extractor, client side


def test_extractor_learns_to_rank_with_the_constants_of_the_paper():
    task = client_task()
    update = update_extractor(extractor(), None, task, PAPER, seed=0)
    assert rank_loss(update.extractor, task) < 0.9 * rank_loss(extractor(), task)


def test_extractor_learns_a_separable_list_completely():
    task = client_task(configurations=12)
    settings = dataclasses.replace(PAPER, learning_rate=3e-3, batches=150)
    update = update_extractor(extractor(), None, task, settings, seed=0)
    scores = score(task.embeddings, update.meta_feature)
    assert rank_loss(update.extractor, task) < 0.2 * rank_loss(extractor(), task)
    assert scores.argsort().tolist() == task.performance.argsort().tolist()


def test_the_update_is_complete_and_the_input_untouched():
    task, before = client_task(), extractor()
    given = uniform_importance(1e-3)
    update = update_extractor(before, given, task, PAPER, seed=0)
    assert distance(before, extractor()) == 0
    assert all((values == 1e-3).all() for values in given.values())
    assert distance(before, update.extractor) > 0
    weights.check_like(update.importance, dict(before.named_parameters()), "the importance")
    assert all((values >= 0).all() for values in update.importance.values())
    assert update.meta_feature.shape == (64,) and not update.meta_feature.requires_grad
    torch.testing.assert_close(update.meta_feature, update.extractor(task.features, task.counts).detach())
    assert update.losses.keys() == {"rank", "triplet", "si"}
    assert update.losses["si"][0] == 0 and update.losses["si"][1] > 0
    weights.dumps(update.importance)


def test_importance_is_the_path_integral_of_the_unregularised_loss():
    # One image and no offline data set: every batch is the same, so a plain loop can follow.
    task = client_task(count=1, offline=0)
    settings = dataclasses.replace(PAPER, batches=12, learning_rate=1e-2, si_weight=5.0)
    given = uniform_importance(0.02)
    update = update_extractor(extractor(), given, task, settings, seed=0)

    def follow(unregularised_only):
        network = extractor()
        names, parameters = zip(*network.named_parameters(), strict=True)
        start = [p.detach().clone() for p in parameters]
        first, second = [torch.zeros_like(p) for p in parameters], [torch.zeros_like(p) for p in parameters]
        omega = [torch.zeros_like(p) for p in parameters]
        for step in range(1, settings.batches + 1):
            loss = lambda_rank(score(task.embeddings, network(task.features, task.counts)), task.performance)
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for k, parameter in enumerate(parameters):
                    total = gradients[k] + settings.si_weight * 2 * 0.02 * (parameter - start[k])
                    first[k] = 0.9 * first[k] + 0.1 * total
                    second[k] = 0.999 * second[k] + 0.001 * total**2
                    scale = (second[k] / (1 - 0.999**step)).sqrt() + 1e-8
                    change = -settings.learning_rate * first[k] / (1 - 0.9**step) / scale
                    parameter += change
                    omega[k] += -(gradients[k] if unregularised_only else total) * change
        return {
            name: torch.relu(0.02 + omega[k] / ((parameters[k].detach() - start[k]) ** 2 + 0.1))
            for k, name in enumerate(names)
        }

    # Summed, because where a gradient is rounding noise around zero Adam's direction is arbitrary.
    def error(values):
        return sum((values[name] - update.importance[name]).abs().sum().item() for name in values)

    total = sum((values - 0.02).abs().sum().item() for values in update.importance.values())
    assert error(follow(unregularised_only=True)) < 0.01 * total
    assert error(follow(unregularised_only=False)) > 0.05 * total


def test_synaptic_intelligence_holds_the_weights():
    task = client_task()
    settings = dataclasses.replace(PAPER, learning_rate=1e-3)
    free = update_extractor(extractor(), None, task, settings, seed=0)
    held = update_extractor(extractor(), uniform_importance(1.0), task, settings, seed=0)
    assert distance(extractor(), held.extractor) < 0.3 * distance(extractor(), free.extractor)


def test_importance_of_no_earlier_task_is_zero_importance():
    task = client_task()
    first = update_extractor(extractor(), None, task, PAPER, seed=0)
    second = update_extractor(extractor(), uniform_importance(0.0), task, PAPER, seed=0)
    assert weights.dumps(first.extractor.state_dict()) == weights.dumps(second.extractor.state_dict())
    assert weights.dumps(first.importance) == weights.dumps(second.importance)


def test_same_seed_same_bytes_and_the_global_random_state_is_left_alone():
    task, state = client_task(), torch.random.get_rng_state()
    one, two, other = (update_extractor(extractor(), None, task, PAPER, seed) for seed in (7, 7, 8))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert weights.dumps(one.extractor.state_dict()) == weights.dumps(two.extractor.state_dict())
    assert weights.dumps(one.importance) == weights.dumps(two.importance)
    assert torch.equal(one.meta_feature, two.meta_feature) and one.losses == two.losses
    assert weights.dumps(one.extractor.state_dict()) != weights.dumps(other.extractor.state_dict())


def test_triplets_pull_data_sets_apart():
    # Nothing to rank, so that only the triplet can move the weights.
    task = dataclasses.replace(client_task(offline=1), performance=torch.ones(4))
    settings = dataclasses.replace(PAPER, margin=30.0, learning_rate=1e-3)
    update = update_extractor(extractor(), None, task, settings, seed=0)

    def loss(network):
        with torch.no_grad():
            own, half = network(task.features, task.counts), network(task.features[:20], task.counts)
            other = network(task.offline_features[0], task.offline_counts[0])
        return triplet(own, half, other, 30.0).item()

    assert update.losses["rank"] == (0.0, 0.0)
    assert update.losses["triplet"][1] < update.losses["triplet"][0]
    assert loss(update.extractor) < loss(extractor()) - 0.5


def test_the_first_batch_is_the_loss_of_the_given_weights():
    # Images of the same content make every batch equal, and one offline set makes the negative certain.
    image = images(1)
    task = dataclasses.replace(
        client_task(offline=1), features=image.repeat(4, 1, 1, 1), offline_features=[images(1, shift=3.0)]
    )
    settings = dataclasses.replace(PAPER, sampling=(1, 0, 0), margin=20.0)
    update = update_extractor(extractor(), None, task, settings, seed=0)
    own = extractor()(image, task.counts)
    other = extractor()(images(1, shift=3.0), task.offline_counts[0])
    expected = triplet(own, own, other, 20.0).item()
    assert 0 < expected < 20
    assert update.losses["triplet"][0] == pytest.approx(expected, rel=1e-4)
    assert update.losses["rank"][0] == pytest.approx(rank_loss(extractor(), dataclasses.replace(task, features=image)))


def test_triplets_are_drawn_by_the_ratio_of_current_to_offline_anchors():
    # One current image and two offline ones leave three possible triplets, all known.
    task = dataclasses.replace(client_task(offline=1), features=images(1), offline_features=[images(2, shift=3.0)])
    settings = dataclasses.replace(PAPER, batches=1, margin=20.0)
    (offline,), (offline_counts,) = task.offline_features, task.offline_counts
    with torch.no_grad():
        own, other = extractor()(task.features, task.counts), extractor()(offline, offline_counts)
        one, two = extractor()(offline[:1], offline_counts), extractor()(offline[1:], offline_counts)
    possible = [triplet(*abc, 20.0).item() for abc in [(own, own, other), (one, two, own), (two, one, own)]]

    drawn = [0, 0, 0]
    for seed in range(120):
        loss = update_extractor(extractor(), None, task, settings, seed).losses["triplet"][0]
        (match,) = [index for index, value in enumerate(possible) if loss == pytest.approx(value, abs=1e-4)]
        drawn[match] += 1
    # 5 : 1 of 120; standard deviation 4.
    assert 5 <= drawn[1] + drawn[2] <= 36 and min(drawn) > 0


def test_offline_anchors_share_their_odds():
    # Only an offline anchor has a positive that differs; with odds 1 : 1 that is half of the draws, however many
    # offline data sets there are.
    offline = [images(2, shift=3.0, seed=i) for i in range(4)]
    task = dataclasses.replace(
        client_task(offline=0), features=images(1), offline_features=offline, offline_counts=[torch.ones(2)] * 4
    )
    settings = dataclasses.replace(PAPER, batches=1, margin=20.0, sampling=(1, 0, 1))
    with torch.no_grad():
        own = extractor()(task.features, task.counts)
        current_anchor = [triplet(own, own, extractor()(images, torch.ones(2)), 20.0).item() for images in offline]
    losses = [update_extractor(extractor(), None, task, settings, seed).losses["triplet"][0] for seed in range(100)]
    current = sum(any(loss == pytest.approx(known, abs=1e-4) for known in current_anchor) for loss in losses)
    assert 30 < current < 70  # standard deviation 5


def test_image_batches_are_disjoint_and_of_limited_size():
    seen = []

    class Spy(MetaFeatureExtractor):
        def forward(self, features, counts):
            seen.extend(features[..., 0, 0, 0].reshape(-1, features.shape[-4]).tolist())
            return super().forward(features, counts)

    task = dataclasses.replace(
        client_task(offline=1), features=torch.arange(900.0).reshape(100, 3, 3, 1).repeat_interleave(DIM, 3)
    )
    update_extractor(Spy(DIM), None, task, dataclasses.replace(PAPER, batches=1, sampling=(1, 0, 0)), seed=0)
    *batches, everything = seen
    negative = next(batch for batch in batches if len(batch) == 30)
    ranked, anchor, positive = (batch for batch in batches if batch is not negative)
    assert [len(batch) for batch in (ranked, anchor, positive, everything)] == [32, 32, 32, 100]
    assert all(set(batch) <= set(everything) for batch in (ranked, anchor, positive))
    assert len(set(anchor) | set(positive)) == 64
    assert set(ranked) != set(anchor)


@pytest.mark.parametrize("sizes", [[], [1], [3, 3], [5, 2, 5, 1, 2]])
def test_views_pass_the_extractor_together_as_they_would_alone(sizes):
    views = [(images(size, seed=place), torch.tensor([size, 2.0 * place])) for place, size in enumerate(sizes)]
    with torch.no_grad():
        together = learning._meta_features(extractor(), views)
        alone = [extractor()(*view) for view in views]
    assert len(together) == len(alone)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(together, alone, strict=True))


def test_without_offline_data_sets_and_without_anything_to_rank_nothing_moves():
    task = dataclasses.replace(client_task(offline=0), performance=torch.full((4,), 0.9))
    update = update_extractor(extractor(), uniform_importance(1.0), task, PAPER, seed=0)
    assert distance(extractor(), update.extractor) == 0
    assert update.losses == {"rank": (0.0, 0.0), "triplet": (0.0, 0.0), "si": (0.0, 0.0)}
    assert all((values == 1).all() for values in update.importance.values())


@pytest.mark.parametrize("configurations", [0, 1])
def test_short_lists_still_learn_from_triplets(configurations):
    update = update_extractor(extractor(), None, client_task(configurations=configurations), PAPER, seed=0)
    assert update.losses["rank"] == (0.0, 0.0)
    assert distance(extractor(), update.extractor) > 0


@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_any_number_of_images(count):
    update = update_extractor(extractor(), None, client_task(count=count), PAPER, seed=0)
    assert update.meta_feature.isfinite().all()


def test_a_loss_that_is_not_finite_is_named():
    task = client_task()
    with pytest.raises(FloatingPointError, match="rank loss is not finite after 0 batches"):
        too_large = dataclasses.replace(task, embeddings=3e38 * task.embeddings.sign())
        update_extractor(extractor(), None, too_large, PAPER, seed=0)
    with pytest.raises(FloatingPointError, match="not finite"):
        settings = dataclasses.replace(PAPER, learning_rate=1e30)
        update_extractor(extractor(), None, task, settings, seed=0)


def test_importance_that_is_not_the_extractors_is_refused():
    task = client_task()
    with pytest.raises(WeightsError, match="the extractor's importance has shape"):
        given = {name: torch.zeros(3) for name in uniform_importance(0.0)}
        update_extractor(extractor(), given, task, PAPER, seed=0)
    for value in (-1.0, NAN):
        with pytest.raises(WeightsError, match="must be finite and 0 or greater"):
            update_extractor(extractor(), uniform_importance(value), task, PAPER, seed=0)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"performance": torch.zeros(3)}, "one row of embeddings and one performance"),
        ({"performance": torch.tensor([1.0, 2.0, NAN, 0.0])}, "performance must be finite: leave failed trials out"),
        ({"embeddings": torch.full((4, 64), NAN)}, "embeddings must be finite"),
        ({"embeddings": torch.zeros(4, 64).double()}, "embeddings must be float32, not float64"),
        ({"features": images(40).double()}, "image features must be float32"),
        ({"features": images(40) / 0}, "image features of the current task must be finite"),
        ({"features": images(40).index_fill(3, torch.tensor([1]), NAN)}, "image features of the current task"),
        ({"counts": torch.tensor([1.0, NAN])}, "counts of the current task"),
        ({"counts": torch.tensor([1.0, -2.0])}, "counts of the current task"),
        ({"counts": torch.tensor([1.0])}, "counts of the current task"),
        ({"replay": torch.full((2, 64), NAN)}, "replay must be a table of finite numbers"),
        ({"replay": torch.zeros(64)}, "replay must be a table"),
        ({"replay": torch.zeros(2, 32)}, "replay has meta-features of 32 numbers, the embeddings have 64"),
        ({"replay": torch.zeros(2, 64).double()}, "replay must be float32"),
        ({"offline_counts": []}, "2 offline data sets but counts for 0"),
        ({"offline_counts": [torch.ones(2), torch.ones(3)]}, "counts of offline data set 1"),
    ],
)
def test_client_tasks_are_checked_at_the_door(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(client_task(), **change)


def test_replay_alone_is_a_negative_like_any_other():
    # One image, nothing to rank, one past task: every batch is the same, so a plain loop can follow.
    task = dataclasses.replace(client_task(count=1, offline=0), performance=torch.ones(4), replay=torch.ones(1, 64))
    settings = dataclasses.replace(PAPER, batches=3, learning_rate=1e-3, margin=30.0)
    update = update_extractor(extractor(), None, task, settings, seed=0)

    network = extractor()
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    losses = []
    for _ in range(settings.batches):
        apart = (network(task.features, task.counts) - 1).square().sum().sqrt()
        losses.append(30.0 - apart.item())
        optimizer.zero_grad()
        (0.03 * (30.0 - apart)).backward()
        optimizer.step()
    assert update.losses["triplet"] == pytest.approx((losses[0], losses[-1]), abs=1e-3)
    assert losses[-1] < losses[0] - 0.01
    # Where a gradient is rounding noise around zero Adam's direction is arbitrary, so not every weight agrees.
    assert distance(network, update.extractor) < 0.1 * distance(extractor(), update.extractor)


def test_negatives_are_drawn_evenly_from_other_data_sets_and_replay():
    replay = torch.stack([torch.full((64,), 2.0), torch.full((64,), -3.0)])
    task = dataclasses.replace(
        client_task(offline=0),
        features=images(1),
        offline_features=[images(1, shift=3.0, seed=i) for i in range(2)],
        offline_counts=[torch.ones(2)] * 2,
        replay=replay,
    )
    settings = dataclasses.replace(PAPER, batches=1, margin=60.0, sampling=(1, 0, 0))
    with torch.no_grad():
        own = extractor()(task.features, task.counts)
        others = [extractor()(offline, torch.ones(2)) for offline in task.offline_features]
    possible = [60.0 - torch.dist(own, negative).item() for negative in [*others, *replay]]
    drawn = [0, 0, 0, 0]
    for seed in range(100):
        loss = update_extractor(extractor(), None, task, settings, seed).losses["triplet"][0]
        (match,) = [index for index, value in enumerate(possible) if loss == pytest.approx(value, abs=1e-4)]
        drawn[match] += 1
    assert all(8 < count < 42 for count in drawn)  # 25 each, standard deviation 4.3


def test_empty_replay_is_no_replay():
    for offline in (0, 2):
        task = client_task(offline=offline)
        without = update_extractor(extractor(), None, task, PAPER, seed=0)
        empty = update_extractor(extractor(), None, dataclasses.replace(task, replay=torch.zeros(0, 64)), PAPER, seed=0)
        assert weights.dumps(without.extractor.state_dict()) == weights.dumps(empty.extractor.state_dict())


# ------------------------------------------------------------------------------------------- the encoder, platform side


def experience(direction, seed=0, n=20, in_dim=6):
    """A task whose performance is linear in the configuration, along `direction`."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, in_dim, generator=generator)
    meta_feature = torch.randn(64, generator=torch.Generator().manual_seed(100 + seed))
    return TaskExperience(inputs, inputs @ torch.tensor(direction), meta_feature)


TASKS = [
    experience([1.0, 0.0, 0.0, 0.0, 0.0, 0.0], seed=0),
    experience([0.0, 1.0, 0.0, 0.0, 0.5, 0.0], seed=1),
    experience([0.0, 0.0, -1.0, 1.0, 0.0, 0.0], seed=2),
]


def encoder():
    return MLPEncoder.initial(6, seed=0)


def encoder_loss(network, task):
    with torch.no_grad():
        return lambda_rank(score(network(task.inputs), task.meta_feature), task.performance).item()


def bytes_of(network):
    return weights.dumps(network.state_dict())


def test_encoder_learns_with_the_constants_of_the_paper():
    learned = update_encoder(encoder(), TASKS[0], TASKS[1:2], TASKS[2:], PAPER, seed=0)
    before = sum(encoder_loss(encoder(), task) for task in TASKS)
    assert sum(encoder_loss(learned, task) for task in TASKS) < before


def test_encoder_learns_separable_tasks_jointly():
    settings = dataclasses.replace(PAPER, learning_rate=3e-3, batches=300)
    before = encoder()
    learned = update_encoder(before, TASKS[0], TASKS[1:2], TASKS[2:], settings, seed=0)
    for task in TASKS:
        assert encoder_loss(learned, task) < 0.3 * encoder_loss(encoder(), task)
    assert bytes_of(before) == bytes_of(encoder())


def test_encoder_same_seed_same_bytes_and_the_global_random_state_is_left_alone():
    state = torch.random.get_rng_state()
    one, two, other = (bytes_of(update_encoder(encoder(), TASKS[0], TASKS[1:], [], PAPER, seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert one == two != other


def test_encoder_one_batch_is_one_step_of_adam():
    # Three configurations fit into one batch, whose order does not matter; Adam's first step is lr * sign(gradient).
    task = experience([1.0, 0.0, 0.0, 0.0, 0.0, 0.0], n=3)
    settings = dataclasses.replace(PAPER, batches=1)
    learned = update_encoder(encoder(), task, [], [], settings, seed=0)
    start = encoder()
    gradients = torch.autograd.grad(
        lambda_rank(score(start(task.inputs), task.meta_feature), task.performance), list(start.parameters())
    )
    for old, new, gradient in zip(start.parameters(), learned.parameters(), gradients, strict=True):
        clear = gradient.abs() > 1e-4
        assert clear.any()
        torch.testing.assert_close((new - old)[clear], -1e-4 * gradient[clear].sign(), rtol=1e-2, atol=1e-7)


def test_long_lists_are_sampled_and_scaled_by_their_whole_task(monkeypatch):
    # Two batches of two out of three configurations: whatever is drawn, the result is one of nine. A pair of the
    # middle and the best one weighs less than its own scale would say, as the middle one has a gain of a third.
    task = TaskExperience(torch.eye(3, 6), torch.tensor([0.0, math.log2(1 + 1 / 3), 1.0]), torch.ones(64))
    settings = dataclasses.replace(PAPER, batches=2, batch_size=1)
    monkeypatch.setattr(learning, "LONGEST_LIST", 2)

    def follow(samples):
        network = encoder()
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        for sample in samples:
            optimizer.zero_grad()
            scores = score(network(task.inputs[sample]), task.meta_feature)
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
        inputs = torch.zeros(n, 3)
        inputs[:, column] = torch.linspace(-1, 1, n)
        return TaskExperience(inputs, inputs[:, column].clone(), torch.ones(64))

    counts = [0, 0, 0]
    for seed in range(350):
        start = MLPEncoder.initial(3, seed=0)
        settings = dataclasses.replace(PAPER, batches=1, batch_size=1)
        learned = update_encoder(start, only(0), [only(1)], [only(2), only(2)], settings, seed)
        change = (learned.layers[0].weight - start.layers[0].weight).abs().sum(dim=0)
        counts[int(change.argmax())] += 1
        assert (change > 0).sum() == 1
    # 5 : 1 : 1 of 350; standard deviations 8.5 and 6.5.
    assert abs(counts[0] - 250) < 40 and abs(counts[1] - 50) < 30 and abs(counts[2] - 50) < 30


def test_a_batch_is_the_mean_of_its_lists():
    # Two tasks at odds of 1 : 1 and two lists a batch: the same one twice, or both.
    settings = dataclasses.replace(PAPER, batches=1, batch_size=2, sampling=(1, 1, 0), learning_rate=1e-2)

    def stepped(tasks):
        network = encoder()
        loss = sum(lambda_rank(score(network(t.inputs), t.meta_feature), t.performance) for t in tasks) / len(tasks)
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        loss.backward()
        optimizer.step()
        return network

    one, two = TASKS[:2]
    possible = [stepped(tasks) for tasks in ([one, one], [two, two], [one, two])]
    drawn = [0, 0, 0]
    for seed in range(60):
        learned = update_encoder(encoder(), one, [two], [], settings, seed)
        apart = [distance(learned, other) for other in possible]
        assert min(apart) < 1e-2 * max(apart)
        drawn[apart.index(min(apart))] += 1
    assert abs(drawn[2] - 30) < 16 and min(drawn) > 3  # standard deviations 3.9 and 3.4


def test_absent_kinds_and_lists_without_a_pair_are_skipped():
    flat = TaskExperience(torch.zeros(5, 6), torch.full((5,), 0.5), torch.ones(64))
    single = TaskExperience(torch.zeros(1, 6), torch.tensor([0.5]), torch.ones(64))
    empty = TaskExperience(torch.zeros(0, 6), torch.zeros(0), torch.ones(64))
    untouched = update_encoder(encoder(), flat, [single], [empty], PAPER, seed=0)
    assert bytes_of(untouched) == bytes_of(encoder())
    with_useless = update_encoder(encoder(), empty, [single, TASKS[0], flat], [], PAPER, seed=0)
    assert bytes_of(with_useless) == bytes_of(update_encoder(encoder(), flat, [TASKS[0]], [], PAPER, seed=0))
    assert bytes_of(with_useless) != bytes_of(encoder())


def test_encoder_names_another_space_and_a_loss_that_is_not_finite():
    with pytest.raises(ValueError, match="made for another search space"):
        update_encoder(MLPEncoder.initial(5, seed=0), TASKS[0], [], [], PAPER, seed=0)
    huge = dataclasses.replace(TASKS[0], meta_feature=torch.full((64,), 3e38))
    with pytest.raises(FloatingPointError, match="rank loss is not finite"):
        update_encoder(encoder(), huge, [], [], PAPER, seed=0)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"performance": torch.zeros(3)}, "one row of inputs and one performance"),
        ({"performance": torch.full((20,), NAN)}, "performance must be finite"),
        ({"meta_feature": torch.full((64,), NAN)}, "one vector of finite numbers"),
        ({"meta_feature": torch.zeros(1, 64)}, "one vector of finite numbers"),
        ({"meta_feature": torch.zeros(64).double()}, "meta_feature must be float32"),
        ({"inputs": torch.zeros(20, 6).long()}, "inputs must be float32, not int64"),
    ],
)
def test_experience_is_checked_at_the_door(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TASKS[0], **change)


@pytest.mark.parametrize("loss", ["rank", "mse"])
@pytest.mark.parametrize("configurations", [0, 1])
def test_no_loss_chokes_on_a_list_without_a_pair(loss, configurations):
    settings = dataclasses.replace(PAPER, loss=loss)
    update = update_extractor(extractor(), None, client_task(configurations=configurations), settings, seed=0)
    assert update.losses["rank"] == (0.0, 0.0)


def test_the_loss_is_the_settings_choice():
    task = client_task()
    with torch.no_grad():
        scores = score(task.embeddings, extractor()(task.features, task.counts))
    whole = dataclasses.replace(PAPER, image_batch=len(task.features))
    y = task.performance
    standardised = (y - y.mean()) / y.std(correction=0)
    for settings, expected in (
        (dataclasses.replace(whole, loss="mse"), (scores - standardised).square().mean()),
        (dataclasses.replace(whole, sigma=3.0), lambda_rank(scores, y, 3.0)),
    ):
        first = update_extractor(extractor(), None, task, settings, seed=0).losses["rank"][0]
        assert first == pytest.approx(expected.item(), rel=1e-4)


# ---------------------------------------------------------------------------------- the warm-up, both on the platform


def offline_task(shift, seed, n=60, count=12):
    """Images around `shift`, which also says how much the second entry of a configuration counts."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(n, 6, generator=generator)
    return OfflineTask(
        images(count, shift, seed), torch.tensor([900.0, 4000.0]), inputs, inputs[:, 0] + shift * inputs[:, 1]
    )


OFFLINE = [offline_task(-1.0, 0), offline_task(1.0, 1), offline_task(0.5, 2)]


def mean_ndcg(warm, tasks):
    """On all results, by scikit-learn, whose gain is linear in what it is given."""
    values = []
    for task in tasks:
        relevance = (task.performance - task.performance.min()) / (task.performance.max() - task.performance.min())
        with torch.no_grad():
            scores = score(warm.encoder(task.inputs), warm.extractor(task.features, task.counts))
        values.append(ndcg_score([(2**relevance - 1).tolist()], [scores.tolist()]))
    return sum(values) / len(values)


def test_warm_up_trains_both_networks_until_what_was_held_out_ranks_no_better():
    settings = dataclasses.replace(PAPER, learning_rate=2e-3, batches=10)
    warm = warm_up(extractor(), encoder(), OFFLINE, settings, seed=0)
    cold = warm_up(extractor(), encoder(), OFFLINE, settings, seed=0, max_batches=0)
    assert distance(cold.extractor, extractor()) == 0 == distance(cold.encoder, encoder())
    assert distance(warm.extractor, extractor()) > 0 < distance(warm.encoder, encoder())
    assert warm.ndcg[0] == cold.ndcg[0]
    best = warm.ndcg.index(max(warm.ndcg))
    assert len(warm.ndcg) - 1 - best == learning.PATIENCE, "it stops when the best check is that many checks ago"
    assert mean_ndcg(warm, OFFLINE) > mean_ndcg(cold, OFFLINE) + 0.05
    unseen = [offline_task(-1.0, 10), offline_task(1.0, 11)]
    assert mean_ndcg(warm, unseen) > mean_ndcg(cold, unseen) + 0.05


def test_warm_up_returns_the_best_networks():
    settings = dataclasses.replace(PAPER, learning_rate=2e-3, batches=10)
    warm = warm_up(extractor(), encoder(), OFFLINE, settings, seed=0)
    best = warm.ndcg.index(max(warm.ndcg))
    stopped = warm_up(extractor(), encoder(), OFFLINE, settings, seed=0, max_batches=10 * best)
    assert stopped.ndcg == warm.ndcg[: best + 1]
    assert bytes_of(stopped.encoder) == bytes_of(warm.encoder)
    assert bytes_of(stopped.extractor) == bytes_of(warm.extractor)


def test_warm_up_validates_on_a_fifth_that_it_does_not_learn_from():
    # Two of ten results are held out: which ones is found by a plain loop that leaves out every pair in turn.
    task = offline_task(1.0, 3, n=10, count=1)
    settings = dataclasses.replace(PAPER, learning_rate=1e-2, batches=1)
    seeds = (warm_up(extractor(), encoder(), [task], settings, seed, max_batches=1) for seed in itertools.count())
    warm = next(warm for warm in seeds if warm.ndcg[1] > warm.ndcg[0])

    def left_out(pair):
        kept = torch.tensor([place for place in range(10) if place not in pair])
        networks = extractor(), encoder()
        optimizer = torch.optim.Adam([*networks[0].parameters(), *networks[1].parameters()], lr=1e-2)
        scores = score(networks[1](task.inputs[kept]), networks[0](task.features, task.counts))
        lambda_rank(scores, task.performance[kept]).backward()
        optimizer.step()
        return distance(warm.encoder, networks[1])

    pairs = sorted(itertools.combinations(range(10), 2), key=left_out)
    assert left_out(pairs[0]) < 0.2 * left_out(pairs[1])
    # Of two results the lower one has gain 0, so the NDCG is that of the other's place.
    out = list(pairs[0])
    with torch.no_grad():
        before = score(encoder()(task.inputs[out]), extractor()(task.features, task.counts))
    assert before.argmax() != task.performance[out].argmax()
    assert warm.ndcg == pytest.approx([1 / math.log2(3), 1.0])


def test_warm_up_without_results_to_hold_out_trains_as_long_as_for_a_task():
    few = offline_task(1.0, 0, n=4)
    warm = warm_up(extractor(), encoder(), [few], PAPER, seed=0)
    assert len(warm.ndcg) == 2 and all(math.isnan(value) for value in warm.ndcg)
    assert distance(warm.encoder, encoder()) > 0 < distance(warm.extractor, extractor())
    flat = dataclasses.replace(OFFLINE[0], performance=torch.ones(60))
    untouched = warm_up(extractor(), encoder(), [flat], PAPER, seed=0)
    assert bytes_of(untouched.encoder) == bytes_of(encoder())
    with pytest.raises(ValueError, match="at least one data set"):
        warm_up(extractor(), encoder(), [], PAPER, seed=0)


def test_warm_up_same_seed_same_bytes_and_the_global_random_state_is_left_alone():
    state = torch.random.get_rng_state()
    settings = dataclasses.replace(PAPER, batches=5, learning_rate=2e-3)
    one, two, other = (warm_up(extractor(), encoder(), OFFLINE, settings, seed, 20) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert bytes_of(one.encoder) == bytes_of(two.encoder) and bytes_of(one.extractor) == bytes_of(two.extractor)
    assert one.ndcg == two.ndcg != other.ndcg


def test_the_warm_up_counts_as_a_task_for_synaptic_intelligence():
    # Too few results to hold any out, one image, one data set: every batch is the same, so a plain loop can follow.
    task = offline_task(1.0, 0, n=4, count=1)
    settings = dataclasses.replace(PAPER, batches=10, learning_rate=1e-2)
    warm = warm_up(extractor(), encoder(), [task], settings, seed=0)
    networks = extractor(), encoder()
    names, parameters = zip(*networks[0].named_parameters(), strict=True)
    optimizer = torch.optim.Adam([*parameters, *networks[1].parameters()], lr=1e-2)
    omega = [torch.zeros_like(parameter) for parameter in parameters]
    for _ in range(settings.batches):
        optimizer.zero_grad()
        lambda_rank(
            score(networks[1](task.inputs), networks[0](task.features, task.counts)), task.performance
        ).backward()
        before = [parameter.detach().clone() for parameter in parameters]
        optimizer.step()
        omega = [
            total - parameter.grad * (parameter.detach() - old)
            for total, parameter, old in zip(omega, parameters, before, strict=True)
        ]
    error, total = 0.0, 0.0
    for name, parameter, start, path in zip(names, parameters, extractor().parameters(), omega, strict=True):
        expected = torch.relu(path / ((parameter.detach() - start.detach()) ** 2 + 0.1))
        error += (warm.importance[name] - expected).abs().sum().item()
        total += expected.sum().item()
    # Summed, because where a gradient is rounding noise around zero Adam's direction is arbitrary.
    assert error < 0.02 * total


# ---------------------------------------------------------------------------------------------- parts that are left out


@pytest.mark.parametrize("without", [("attention",), ("attention", "labels", "gwap", "pyramid", "statistics")])
def test_parts_that_the_extractor_goes_without_stay_and_do_not_matter(without):
    """The layer of "attention" has no gradients then: its weights stay, its importance is 0; the others learn."""
    bare = MetaFeatureExtractor.initial(DIM, seed=0, without=without)
    settings = dataclasses.replace(PAPER, batches=5, learning_rate=1e-2)
    warm = warm_up(bare, encoder(), OFFLINE, settings, seed=0, max_batches=10)
    settings = dataclasses.replace(settings, si_weight=0.0)
    update = update_extractor(warm.extractor, warm.importance, client_task(), settings, seed=0)
    for before, after, importance in (
        (bare, update.extractor, update.importance),
        (bare, warm.extractor, warm.importance),
    ):
        assert after.without == set(without)
        old, new = dict(before.named_parameters()), dict(after.named_parameters())
        assert set(importance) == set(new)
        for name in new:
            if name.startswith("dataset."):
                assert torch.equal(old[name], new[name]) and not importance[name].any(), name
        assert not torch.equal(old["image.weight"], new["image.weight"]) and importance["image.weight"].any()
