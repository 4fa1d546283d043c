"""The client's side of eq. 11."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from nni_hyperfd.method import (
    ClientTask,
    MetaFeatureExtractor,
    RankerSettings,
    WeightsError,
    lambda_rank,
    score,
    triplet,
    update_extractor,
    weights,
)
from support.encoded import bytes_of, distance, images

PAPER = RankerSettings()
DIM = 5
NAN = float("nan")


def client_task(count=40, offline=2, configurations=4, seed=0):
    embeddings = torch.randn(configurations, 64, generator=torch.Generator().manual_seed(seed))
    return ClientTask(
        features=images(count),
        embeddings=embeddings,
        performance=embeddings[:, 0].clone(),
        offline=[images(30, shift=2.0 * (i + 1), seed=i + 1) for i in range(offline)],
    )


def extractor():
    return MetaFeatureExtractor.initial(DIM, seed=0)


def uniform_importance(value):
    return {name: torch.full_like(parameter, value) for name, parameter in extractor().named_parameters()}


def rank_loss(network, task):
    with torch.no_grad():
        return lambda_rank(score(task.embeddings, network(task.features)), task.performance).item()


def test_it_learns_to_rank_with_the_constants_of_the_paper():
    task = client_task()
    update = update_extractor(extractor(), None, task, PAPER, seed=0)
    assert rank_loss(update.extractor, task) < 0.9 * rank_loss(extractor(), task)


def test_it_learns_a_separable_list_completely():
    task = client_task(configurations=12)
    settings = dataclasses.replace(PAPER, learning_rate=3e-3, batches=300)
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
    torch.testing.assert_close(update.meta_feature, update.extractor(task.features).detach())
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
            loss = lambda_rank(score(task.embeddings, network(task.features)), task.performance)
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
    assert bytes_of(first.extractor) == bytes_of(second.extractor)
    assert weights.dumps(first.importance) == weights.dumps(second.importance)


def test_same_seed_same_bytes_and_the_global_random_state_is_left_alone():
    task, state = client_task(), torch.random.get_rng_state()
    one, two, other = (update_extractor(extractor(), None, task, PAPER, seed) for seed in (7, 7, 8))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert bytes_of(one.extractor) == bytes_of(two.extractor)
    assert weights.dumps(one.importance) == weights.dumps(two.importance)
    assert torch.equal(one.meta_feature, two.meta_feature) and one.losses == two.losses
    assert bytes_of(one.extractor) != bytes_of(other.extractor)


def test_triplets_pull_data_sets_apart():
    # Nothing to rank, so that only the triplet can move the weights.
    task = dataclasses.replace(client_task(offline=1), performance=torch.ones(4))
    settings = dataclasses.replace(PAPER, margin=30.0, learning_rate=1e-3)
    update = update_extractor(extractor(), None, task, settings, seed=0)

    def loss(network):
        with torch.no_grad():
            own, half = network(task.features), network(task.features[:20])
            other = network(task.offline[0])
        return triplet(own, half, other, 30.0).item()

    assert update.losses["rank"] == (0.0, 0.0)
    assert update.losses["triplet"][1] < update.losses["triplet"][0]
    assert loss(update.extractor) < loss(extractor()) - 0.5


def test_the_first_batch_is_the_loss_of_the_given_weights():
    # Images of the same content make every batch equal, and one offline set makes the negative certain.
    image = images(1)
    neighbour = images(1, shift=3.0)
    task = dataclasses.replace(client_task(), features=image.repeat(4, 1, 1, 1), offline=[neighbour])
    settings = dataclasses.replace(PAPER, sampling=(1, 0, 0), margin=20.0)
    update = update_extractor(extractor(), None, task, settings, seed=0)
    own = extractor()(image)
    other = extractor()(neighbour)
    expected = triplet(own, own, other, 20.0).item()
    assert 0 < expected < 20
    assert update.losses["triplet"][0] == pytest.approx(expected, rel=1e-4)
    assert update.losses["rank"][0] == pytest.approx(rank_loss(extractor(), dataclasses.replace(task, features=image)))


def test_triplets_are_drawn_by_the_ratio_of_current_to_offline_anchors():
    # One current image and two offline ones leave three possible triplets, all known.
    task = dataclasses.replace(client_task(), features=images(1), offline=[images(2, shift=3.0)])
    settings = dataclasses.replace(PAPER, batches=1, margin=20.0)
    (offline,) = task.offline
    with torch.no_grad():
        own, other = extractor()(task.features), extractor()(offline)
        one, two = extractor()(offline[:1]), extractor()(offline[1:])
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
    task = dataclasses.replace(client_task(), features=images(1), offline=offline)
    settings = dataclasses.replace(PAPER, batches=1, margin=20.0, sampling=(1, 0, 1))
    with torch.no_grad():
        own = extractor()(task.features)
        current_anchor = [triplet(own, own, extractor()(batch), 20.0).item() for batch in offline]
    losses = [update_extractor(extractor(), None, task, settings, seed).losses["triplet"][0] for seed in range(100)]
    current = sum(any(loss == pytest.approx(known, abs=1e-4) for known in current_anchor) for loss in losses)
    assert 30 < current < 70  # standard deviation 5


def test_image_batches_are_disjoint_and_of_limited_size():
    seen = []

    class Spy(MetaFeatureExtractor):
        def forward(self, features):
            seen.extend(features[..., 0, 0, 0].reshape(-1, features.shape[-4]).tolist())
            return super().forward(features)

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


def test_replay_alone_is_a_negative_like_any_other():
    # One image, nothing to rank, one past task: every batch is the same, so a plain loop can follow.
    task = dataclasses.replace(client_task(count=1, offline=0), performance=torch.ones(4), replay=torch.ones(1, 64))
    settings = dataclasses.replace(PAPER, batches=3, learning_rate=1e-3, margin=30.0)
    update = update_extractor(extractor(), None, task, settings, seed=0)

    network = extractor()
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    losses = []
    for _ in range(settings.batches):
        apart = (network(task.features) - 1).square().sum().sqrt()
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
        offline=[images(1, shift=3.0, seed=i) for i in range(2)],
        replay=replay,
    )
    settings = dataclasses.replace(PAPER, batches=1, margin=60.0, sampling=(1, 0, 0))
    with torch.no_grad():
        own = extractor()(task.features)
        others = [extractor()(batch) for batch in task.offline]
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
        assert bytes_of(without.extractor) == bytes_of(empty.extractor)


@pytest.mark.parametrize("loss", ["rank", "mse"])
@pytest.mark.parametrize("configurations", [0, 1])
def test_no_loss_chokes_on_a_list_without_a_pair(loss, configurations):
    settings = dataclasses.replace(PAPER, loss=loss)
    update = update_extractor(extractor(), None, client_task(configurations=configurations), settings, seed=0)
    assert update.losses["rank"] == (0.0, 0.0)


def test_the_loss_is_the_settings_choice():
    task = client_task()
    with torch.no_grad():
        scores = score(task.embeddings, extractor()(task.features))
    whole = dataclasses.replace(PAPER, image_batch=len(task.features))
    y = task.performance
    standardised = (y - y.mean()) / y.std(correction=0)
    for settings, expected in (
        (dataclasses.replace(whole, loss="mse"), (scores - standardised).square().mean()),
        (dataclasses.replace(whole, sigma=2.0), lambda_rank(scores, y, 2.0)),
    ):
        first = update_extractor(extractor(), None, task, settings, seed=0).losses["rank"][0]
        assert first == pytest.approx(expected.item(), rel=1e-4)
