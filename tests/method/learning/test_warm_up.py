"""The warm-up on the platform's own data sets."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from sklearn.metrics import ndcg_score

from nni_hyperfd.method import (
    ClientTask,
    ConfigurationEncoder,
    MetaFeatureExtractor,
    OfflineTask,
    RankerSettings,
    lambda_rank,
    score,
    update_extractor,
    warm_up,
)
from nni_hyperfd.method.learning.warm_up import PATIENCE
from support.encoded import KINDS, bytes_of, configurations, distance, images

PAPER = RankerSettings()
DIM = 5


def offline_task(shift, seed, n=60, count=12, kind="hpo"):
    """Images around `shift`, which also says how much the second entry of a configuration counts."""
    encoded = configurations(kind, n, seed)
    performance = torch.from_numpy(encoded.vectors[:, 0] + shift * encoded.vectors[:, 1])
    return OfflineTask(images(count, shift, seed), encoded, performance)


def extractor():
    return MetaFeatureExtractor.initial(DIM, seed=0)


def encoder(kind="hpo"):
    return ConfigurationEncoder.initial(configurations(kind, 1), seed=0)


OFFLINE = [offline_task(-1.0, 0), offline_task(1.0, 1), offline_task(0.5, 2)]


def mean_ndcg(warm, tasks):
    """On all results, by scikit-learn, whose gain is linear in what it is given."""
    values = []
    for task in tasks:
        relevance = (task.performance - task.performance.min()) / (task.performance.max() - task.performance.min())
        with torch.no_grad():
            scores = score(warm.encoder(task.configurations), warm.extractor(task.features))
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
    assert len(warm.ndcg) - 1 - best == PATIENCE, "it stops when the best check is that many checks ago"
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
        kept = [place for place in range(10) if place not in pair]
        networks = extractor(), encoder()
        optimizer = torch.optim.Adam([*networks[0].parameters(), *networks[1].parameters()], lr=1e-2)
        scores = score(networks[1](task.configurations[kept]), networks[0](task.features))
        lambda_rank(scores, task.performance[kept]).backward()
        optimizer.step()
        return distance(warm.encoder, networks[1])

    pairs = sorted(itertools.combinations(range(10), 2), key=left_out)
    assert left_out(pairs[0]) < 0.2 * left_out(pairs[1])
    # Of two results the lower one has gain 0, so the NDCG is that of the other's place.
    out = list(pairs[0])
    with torch.no_grad():
        before = score(encoder()(task.configurations[out]), extractor()(task.features))
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


@pytest.mark.parametrize("kind", ["nas", "joint"])
def test_warm_up_on_architectures_ranks_better_and_ends_ready(kind):
    tasks = [offline_task(shift, seed, kind=kind) for seed, shift in enumerate((-1.0, 1.0))]
    settings = dataclasses.replace(PAPER, learning_rate=5e-3, batches=10)
    warm = warm_up(extractor(), encoder(kind), tasks, settings, seed=0, max_batches=60)
    assert max(warm.ndcg) > warm.ndcg[0] and len(warm.ndcg) <= 7
    assert not any(module.training for module in warm.encoder.modules())
    cold = warm_up(extractor(), encoder(kind), tasks, settings, seed=0, max_batches=0)
    assert mean_ndcg(warm, tasks) > mean_ndcg(cold, tasks) + 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_bytes_and_the_global_random_state_is_left_alone(kind):
    tasks = [offline_task(shift, seed, n=20, kind=kind) for seed, shift in enumerate((-1.0, 1.0))]
    settings = dataclasses.replace(PAPER, batches=3, learning_rate=2e-3)
    found = []
    for seed, elsewhere in ((3, 0), (3, 1), (4, 0)):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(elsewhere)  # what dropout would follow without a seed of its own
            state = torch.random.get_rng_state()
            warm = warm_up(extractor(), encoder(kind), tasks, settings, seed, 9)
            assert torch.equal(torch.random.get_rng_state(), state)
        found.append((bytes_of(warm.encoder), bytes_of(warm.extractor), warm.ndcg))
    assert found[0] == found[1]
    assert all(one != other for one, other in zip(found[0], found[2], strict=True))


@pytest.mark.parametrize("kind", ["nas", "joint"])
def test_dropout_acts_while_it_learns_and_not_while_it_validates(kind):
    settings = dataclasses.replace(PAPER, batches=5)
    without = encoder(kind)
    without.gin.dropout.p = 0.0
    few, many = offline_task(1.0, 0, n=4, kind=kind), offline_task(1.0, 0, n=20, kind=kind)
    one, other = (warm_up(extractor(), network, [few], settings, 0) for network in (encoder(kind), without))
    assert distance(one.extractor, other.extractor) > 1e-4 < distance(one.encoder, other.encoder)
    one, other = (warm_up(extractor(), network.train(), [many], settings, 0, 0) for network in (encoder(kind), without))
    assert one.ndcg == other.ndcg


def test_a_frozen_extractor_stays_and_the_encoder_learns_as_ever():
    settings = dataclasses.replace(PAPER, batches=5, learning_rate=2e-3)
    given = extractor()
    warm = warm_up(given, encoder(), OFFLINE, settings, seed=0, max_batches=20, frozen=True)
    assert bytes_of(warm.extractor) == bytes_of(extractor()) and distance(warm.encoder, encoder()) > 0
    assert not any(values.any() for values in warm.importance.values())
    assert all(parameter.requires_grad for parameter in given.parameters())


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
        lambda_rank(score(networks[1](task.configurations), networks[0](task.features)), task.performance).backward()
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


@pytest.mark.parametrize("without", [("attention",), ("attention", "labels", "gwap", "pyramid", "statistics")])
def test_parts_that_the_extractor_goes_without_stay_and_do_not_matter(without):
    """The layer of "attention" has no gradients then: its weights stay, its importance is 0; the others learn."""
    bare = MetaFeatureExtractor.initial(DIM, seed=0, without=without)
    settings = dataclasses.replace(PAPER, batches=5, learning_rate=1e-2)
    warm = warm_up(bare, encoder(), OFFLINE, settings, seed=0, max_batches=10)
    settings = dataclasses.replace(settings, si_weight=0.0)
    embeddings = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    task = ClientTask(images(40), embeddings, embeddings[:, 0], [images(30, 2.0)])
    update = update_extractor(warm.extractor, warm.importance, task, settings, seed=0)
    for before, after, importance in (
        (bare, update.extractor, update.importance),
        (bare, warm.extractor, warm.importance),
    ):
        assert after.without == set(without)
        old, new = dict(before.named_parameters()), dict(after.named_parameters())
        assert set(importance) == set(new)
        for name in new:
            if name.startswith(("references", "attention", "feed_forward", "output_norm")):
                assert torch.equal(old[name], new[name]) and not importance[name].any(), name
        assert not torch.equal(old["image.weight"], new["image.weight"]) and importance["image.weight"].any()
