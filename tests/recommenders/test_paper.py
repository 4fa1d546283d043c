"""The paper's recipe as a recommender, and its ablations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from nni_hyperfd.method import (
    ClientTask,
    ConfigurationEncoder,
    MetaFeatureExtractor,
    RankerSettings,
    recipe,
    score,
    update_extractor,
    weights,
)
from nni_hyperfd.method.drawing import tasks_to_learn_from
from nni_hyperfd.recommenders import paper
from nni_hyperfd.recommenders.base import MeasuredDataset, Task
from nni_hyperfd.recommenders.continual import (
    FrozenExtractor,
    FrozenRanker,
    LatestDataOnly,
    NoTransformation,
    Oracle,
)
from nni_hyperfd.recommenders.paper import PaperHyperFD
from nni_hyperfd.space.encoded import EncodedConfigurations
from support.encoded import bytes_of, configurations, distance

# Fast, and far enough for the extractor's space to have moved.
SETTINGS = RankerSettings(learning_rate=3e-3, batches=10, si_weight=0.0)
SHORT = dataclasses.replace(SETTINGS, batches=1)


def candidates(seed, width=3, n=40):
    return EncodedConfigurations(np.random.default_rng(seed).random((n, width), dtype=np.float32))


def described(seed, length=5):
    return Task(4, np.random.default_rng([seed, 1]).normal(size=length).astype(np.float32))


def measured(seed):
    offered = candidates(seed)
    return MeasuredDataset(described(seed), offered, offered.vectors[:, 0] + described(seed).meta_feature[0] * 0.1)


OWN = [measured(seed) for seed in (100, 101, 102)]


def lead(recommender, seeds=(0, 1, 2), performance=lambda vectors: vectors[:, 0]):
    for seed in seeds:
        offered = candidates(seed)
        recommender.start_task(described(seed), offered)
        recommender.end_task(dict(enumerate(performance(offered.vectors).tolist())))
    return recommender


def meta_feature(extractor, images):
    with torch.no_grad():
        return extractor(images)


def carried(recommender, target=None):
    """The past tasks' meta-features in the newest extractor's space."""
    target = len(recommender.landmarks) - 1 if target is None else target
    return [recommender.carried(past.meta_feature, past.version, target, past.number) for past in recommender.past]


@pytest.fixture
def client(monkeypatch):
    """What the client's side of eq. 11 was given, call by call."""
    calls = []

    def update(extractor, importance, task, settings, seed):
        calls.append((task, seed))
        return update_extractor(extractor, importance, task, settings, seed)

    monkeypatch.setattr(paper, "update_extractor", update)
    return calls


# -- where there are no data sets of the platform's own ----------------------------------------------------------------


def test_without_own_data_sets_the_first_task_is_learned_from_by_eq_11_with_initial_weights():
    recommender = lead(PaperHyperFD(7, SETTINGS), [0])
    assert recommender.warmed is None and recommender.kept == []
    encoder = ConfigurationEncoder.initial(candidates(0), recipe.INITIAL_SEED)
    images, performance = recommender.described(described(0)), torch.from_numpy(candidates(0).vectors[:, 0])
    task = ClientTask(images, encoder(candidates(0)).detach(), performance)
    update = update_extractor(MetaFeatureExtractor.initial(5, recipe.INITIAL_SEED), None, task, SETTINGS, 7 + 1)
    assert bytes_of(recommender.extractor) == bytes_of(update.extractor)
    assert weights.dumps(recommender.importance) == weights.dumps(update.importance)
    current = recipe.PastTask(candidates(0), performance, update.meta_feature)
    expected = recipe.learned_encoder(encoder, current, [], SETTINGS, 7 + 1)
    assert bytes_of(recommender.encoder) == bytes_of(expected) != bytes_of(encoder)
    (past,) = recommender.past
    assert torch.equal(past.meta_feature, update.meta_feature) and (past.number, past.version) == (1, 1)


def test_a_task_with_nothing_to_rank_teaches_neither_network_and_is_not_kept():
    recommender = lead(PaperHyperFD(0, SETTINGS), [0], lambda vectors: 0 * vectors[:, 0])
    assert recommender.past == []
    assert distance(recommender.extractor, MetaFeatureExtractor.initial(5, recipe.INITIAL_SEED)) == 0
    assert distance(recommender.encoder, ConfigurationEncoder.initial(candidates(0), recipe.INITIAL_SEED)) == 0
    lead(recommender, [1])
    assert [past.number for past in recommender.past] == [2]


# -- the platform's own data sets --------------------------------------------------------------------------------------


def test_own_data_sets_warm_up_before_the_first_task():
    settings = dataclasses.replace(SETTINGS, exploration=0.0)
    recommender = PaperHyperFD(0, settings, OWN)
    recommender.start_task(described(0), candidates(0))
    assert recommender.warmed is not None and recommender.importance is recommender.warmed.importance
    assert np.corrcoef(recommender.scores(), candidates(0).vectors[:, 0])[0, 1] > 0.5
    assert [(past.number, past.version, past.offline) for past in recommender.past] == [
        (1, 0, True),
        (2, 0, True),
        (3, 0, True),
    ]
    lead(recommender, [1])
    assert [past.number for past in recommender.past] == [1, 2, 3, 5], "the first task was given up, but has arrived"


def test_own_data_sets_may_be_told_of_later_but_before_the_first_task():
    made, told = PaperHyperFD(0, SETTINGS, OWN), PaperHyperFD(0, SETTINGS)
    told.know(OWN)
    for recommender in (made, told):
        recommender.start_task(described(0), candidates(0))
    assert bytes_of(made.encoder) == bytes_of(told.encoder) and bytes_of(made.extractor) == bytes_of(told.extractor)
    assert made.ask(4) == told.ask(4) and len(told.past) == 3


def test_networks_that_are_warm_already_are_not_warmed_up_again():
    first = PaperHyperFD(0, SETTINGS, OWN)
    first.start_task(described(0), candidates(0))
    extractor, encoder = bytes_of(first.extractor), bytes_of(first.encoder)
    second = PaperHyperFD(1, SETTINGS, OWN, first.warmed)
    second.start_task(described(0), candidates(0))
    assert second.extractor is first.extractor and second.encoder is first.encoder
    lead(second)
    assert bytes_of(second.extractor) != extractor == bytes_of(first.extractor), "what is given must stay as it is"
    assert bytes_of(second.encoder) != encoder == bytes_of(first.encoder)


def test_an_own_data_set_of_which_nothing_is_known_is_refused():
    with pytest.raises(ValueError, match="needs images or a meta-feature"):
        PaperHyperFD(0, SETTINGS, [dataclasses.replace(OWN[0], task=Task())])


def test_a_first_task_of_which_nothing_is_known_is_ranked_by_what_the_warm_up_knows():
    recommender = PaperHyperFD(0, SETTINGS, OWN)
    recommender.start_task(Task(), candidates(0))
    assert recommender.warmed is not None and len(recommender.past) == 3
    assert np.corrcoef(recommender.scores(), candidates(0).vectors[:, 0])[0, 1] > 0.5
    warmed = recommender.warmed
    recommender.start_task(described(1), candidates(1))
    assert recommender.warmed is warmed and recommender.extractor is warmed.extractor


def test_another_size_starts_anew_without_the_own_data_sets():
    recommender = lead(PaperHyperFD(0, SETTINGS, OWN))
    recommender.start_task(described(3, length=7), candidates(3, width=2))
    assert recommender.warmed is None and not recommender.past and not recommender.offline and not recommender.kept
    assert recommender.encoder.mlp.in_dim == 2 and recommender.extractor.feature_dim == 7
    assert recommender.importance is None and recommender.version == 0


@pytest.mark.parametrize(
    "other",
    [
        configurations("joint", 20),
        dataclasses.replace(configurations("joint", 20), beside=(0, 12)),
        dataclasses.replace(configurations("joint", 20), beside=()),
        EncodedConfigurations(configurations("joint", 20).vectors),
    ],
)
def test_a_space_of_the_same_width_with_other_graphs_or_columns_is_another_one(other):
    graphs = configurations("joint", 20).graphs
    given = EncodedConfigurations(configurations("joint", 20).vectors, graphs, (1, 12))
    recommender = PaperHyperFD(0, SHORT)
    for offered in (given, other, given):
        recommender.start_task(described(0), offered)
        assert not recommender.past
        assert len(recommender.ask(4)) == 4
        recommender.end_task({0: 0.0, 1: 1.0})
        assert len(recommender.past) == 1


# -- what the platform can do, and no more -----------------------------------------------------------------------------


def test_a_client_is_given_a_few_images_of_a_few_of_the_own_data_sets(client):
    def with_images(seed, count):
        images = np.random.default_rng([seed, 2]).normal(size=(count, 3, 3, 5)).astype(np.float32)
        return Task(4, None, images, np.array([count, seed], dtype=np.float32))

    own = [dataclasses.replace(measured(seed), task=with_images(seed, 50)) for seed in range(10)]
    settings = dataclasses.replace(SHORT, image_batch=4)
    recommender = PaperHyperFD(5, settings, own)
    recommender.start_task(with_images(20, 30), candidates(0))
    recommender.end_task({2: 0.5, 0: 0.7, 7: 0.1})
    ((task, seed),) = client
    assert seed == recipe.task_seed(5, 11) and len(task.features) == 30
    assert task.performance.tolist() == pytest.approx([0.7, 0.5, 0.1])
    assert [len(images) for images in task.offline] == [16] * 8
    assert [len(images) for images in recommender.kept] == [32] * 10
    known = [{tuple(image.flatten().tolist()) for image in images} for images in recommender.kept]
    for images in task.offline:
        assert sum({tuple(image.flatten().tolist()) for image in images} < own for own in known) == 1
    expected = recipe.images_for_client(recommender.kept, recipe.task_rng(5, 11))
    assert all(torch.equal(images, theirs) for images, theirs in zip(task.offline, expected, strict=True))


def test_each_task_has_its_own_seeds(client):
    lead(PaperHyperFD(5, SHORT))
    assert [seed for _, seed in client] == [6, 7, 8]
    picks = []
    for seed in range(8):
        recommender = PaperHyperFD(seed, SHORT)
        recommender.start_task(described(0), candidates(0))
        scores = torch.from_numpy(recommender.scores())
        picks.append(recommender.ask(4))
        assert picks[-1] == recipe.picks(scores, 4, 0.5, seed, number=1)
        assert picks[-1][:2] == scores.argsort(descending=True)[:2].tolist()
    assert len(set(map(tuple, picks))) > 1


def test_results_are_learned_from_in_the_order_in_which_they_were_asked_for(client):
    recommender = PaperHyperFD(0, SHORT)
    recommender.start_task(described(0), candidates(0))
    asked = recommender.ask(4)
    revealed = {index: float(index) for index in sorted(asked, reverse=True)} | {39: 39.0, asked[1]: np.nan}
    recommender.end_task(revealed)
    ((task, _),) = client
    expected = [asked[0], asked[2], asked[3]] + ([] if 39 in asked else [39])
    assert task.performance.tolist() == [float(index) for index in expected]
    np.testing.assert_array_equal(recommender.past[0].configurations.vectors, candidates(0).vectors[expected])


def test_at_most_32_past_tasks_are_learned_from_drawn_as_the_platform_draws():
    class Spied(PaperHyperFD):
        drawn = ()

        def rehearsed(self, drawn):
            self.drawn = [past.number for past in drawn]
            return super().rehearsed(drawn)

    recommender = Spied(3, SHORT, OWN)
    for number in range(4, 42):
        known, before = [past.number for past in recommender.past if not past.offline], number
        lead(recommender, [number])
        rng = np.random.default_rng(recipe.task_seed(3, before))
        assert recommender.drawn == tasks_to_learn_from(known, [1, 2, 3], rng)
    assert len(recommender.drawn) == 32 and recommender.drawn[-1] == 40


# -- meta-features in the newest extractor's space ---------------------------------------------------------------------


def test_past_meta_features_are_carried_by_least_squares_on_the_own_data_sets():
    recommender = lead(PaperHyperFD(0, SETTINGS, OWN))
    newest = torch.stack([meta_feature(recommender.extractor, images) for images in recommender.kept]).double().numpy()
    assert [past.version for past in recommender.past] == [0, 0, 0, 1, 2, 3]
    for past, found in zip(recommender.past, carried(recommender), strict=True):
        # Eq. 4 with the pull of 0.01 towards the identity, by the normal equations.
        old = recommender.landmarks[past.version].double().numpy()
        matrix = np.linalg.solve(old.T @ old + 0.01 * np.eye(64), old.T @ newest + 0.01 * np.eye(64))
        np.testing.assert_allclose(found.numpy(), past.meta_feature.double().numpy() @ matrix, atol=2e-4)
    assert (carried(recommender)[3] - recommender.past[3].meta_feature).norm() > 0.1
    assert torch.equal(carried(recommender)[-1], recommender.past[-1].meta_feature)


def test_own_data_sets_describe_each_version_of_the_extractor():
    recommender = lead(PaperHyperFD(0, SETTINGS, OWN), [0])
    kept = [recipe.kept_images(own.features, 3, np.random.default_rng(0)) for own in recommender.offline]
    for version, extractor in enumerate((recommender.warmed.extractor, recommender.extractor)):
        expected = torch.stack([meta_feature(extractor, images) for images in kept])
        assert torch.equal(recommender.landmarks[version], expected)


def test_the_score_is_eq_1_in_the_space_that_the_encoder_was_trained_towards():
    recommender = lead(PaperHyperFD(0, SETTINGS, OWN))
    recommender.start_task(described(7), candidates(7))
    h = meta_feature(recommender.extractor, recommender.described(described(7)))
    expected = score(recommender.encoder(candidates(7)), h).detach().numpy()
    np.testing.assert_allclose(recommender.scores(), expected, rtol=1e-5)
    # A task without results updates the extractor by its triplets alone: the encoder stays where it was.
    recommender.end_task({})
    assert recommender.version == 4
    recommender.start_task(described(8), candidates(8))
    h = recommender.carried(meta_feature(recommender.extractor, recommender.described(described(8))), 4, 3)
    expected = score(recommender.encoder(candidates(8)), h).detach().numpy()
    np.testing.assert_allclose(recommender.scores(), expected, rtol=1e-5)


def test_an_unknown_data_set_is_ranked_by_the_mean_of_the_known_and_teaches_the_encoder_alone():
    recommender = lead(PaperHyperFD(0, SETTINGS, OWN))
    extractor, encoder, versions = recommender.extractor, bytes_of(recommender.encoder), len(recommender.landmarks)
    recommender.start_task(Task(), candidates(7))
    mean = torch.stack(carried(recommender)).mean(0)
    expected = score(recommender.encoder(candidates(7)), mean).detach().numpy()
    np.testing.assert_allclose(recommender.scores(), expected, rtol=1e-5)
    recommender.end_task(dict(enumerate(candidates(7).vectors[:, 0].tolist())))
    assert recommender.extractor is extractor and len(recommender.landmarks) == versions
    assert bytes_of(recommender.encoder) != encoder and recommender.past[-1].meta_feature is None
    lead(recommender, [8])  # and is learned from without a meta-feature
    recommender.start_task(Task(), candidates(9))
    known = [past for past in recommender.past if past.meta_feature is not None]
    assert len(known) == len(recommender.past) - 1


def test_images_take_the_place_of_a_meta_feature_and_unknown_entries_are_0():
    recommender = PaperHyperFD(0, SETTINGS)
    images = np.random.default_rng(0).normal(size=(6, 3, 3, 7)).astype(np.float32)
    features = recommender.described(Task(4, np.ones(5), images, np.array([6.0, 9.0])))
    assert torch.equal(features, torch.from_numpy(images))
    features = recommender.described(Task(4, np.array([1.0, np.nan, -np.inf, 2.0])))
    assert features.shape == (1, 3, 3, 4)
    assert (features == torch.tensor([1.0, 0.0, 0.0, 2.0])).all()
    assert recommender.described(Task()) is None and recommender.described(Task(4, np.zeros(0))) is None


# -- architectures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["nas", "joint"])
def test_architectures_are_encoded_by_the_graph_network(kind):
    """Its recipe is the same: it warms up, learns, and ranks by eq. 1."""

    def performance(encoded):
        ops = encoded.graphs.ops
        beside = 0.5 * encoded.vectors[:, encoded.beside[0]] if encoded.beside else 0
        return 1.0 * (ops == 0).sum(axis=1) - (ops == 2).sum(axis=1) + beside

    own = []
    for seed in (100, 101):
        offered = configurations(kind, 40, seed)
        own.append(MeasuredDataset(described(seed), offered, performance(offered)))
    recommender = PaperHyperFD(0, SETTINGS, own)
    offered = configurations(kind, 40)
    recommender.start_task(described(0), offered)
    assert recommender.encoder.gin is not None and (recommender.encoder.mlp is not None) == (kind == "joint")
    assert np.corrcoef(recommender.scores(), performance(offered))[0, 1] > 0.5
    before = bytes_of(recommender.encoder)
    recommender.end_task(dict(enumerate(performance(offered).tolist())))
    assert bytes_of(recommender.encoder) != before
    recommender.start_task(described(0), offered)
    h = meta_feature(recommender.extractor, recommender.described(described(0)))
    np.testing.assert_allclose(recommender.scores(), score(recommender.encoder(offered), h).detach(), rtol=1e-4)
    assert recommender.past[-1].configurations.graphs is not None


# -- the ablations -----------------------------------------------------------------------------------------------------


def test_the_oracle_describes_past_tasks_by_the_newest_extractor():
    recommender = lead(Oracle(0, SETTINGS, OWN))
    seen = [own.features for own in recommender.offline]
    seen += [recommender.described(described(seed)) for seed in range(3)]
    for images, found in zip(seen, carried(recommender), strict=True):
        assert torch.equal(found, meta_feature(recommender.extractor, images))
    assert (carried(recommender)[3] - recommender.past[3].meta_feature).norm() > 0.1


def test_without_transformation_past_meta_features_are_as_they_were_made():
    recommender = lead(NoTransformation(0, SETTINGS, OWN))
    assert all(a is b.meta_feature for a, b in zip(carried(recommender), recommender.past, strict=True))
    assert len({past.version for past in recommender.past}) == 4


@pytest.mark.parametrize(
    ("kind", "extractor_learns", "encoder_learns"),
    [
        (PaperHyperFD, True, True),
        (LatestDataOnly, True, True),
        (FrozenExtractor, False, True),
        (FrozenRanker, False, False),
    ],
)
def test_what_learns_after_the_warm_up(kind, extractor_learns, encoder_learns):
    recommender = kind(0, SETTINGS, OWN)
    recommender.start_task(described(0), candidates(0))
    extractor, encoder = bytes_of(recommender.extractor), bytes_of(recommender.encoder)
    lead(recommender)
    assert (bytes_of(recommender.extractor) != extractor) == extractor_learns
    assert (bytes_of(recommender.encoder) != encoder) == encoder_learns
    assert len(recommender.past) == 6


def test_latest_data_only_rehearses_nothing():
    full, latest = (lead(kind(0, SETTINGS, OWN)) for kind in (PaperHyperFD, LatestDataOnly))
    assert latest.rehearsed(latest.past) == []
    rehearsed = full.rehearsed(full.past)
    assert [task.offline for task in rehearsed] == [True] * 3 + [False] * 3
    for task, past, found in zip(rehearsed, full.past, carried(full), strict=True):
        assert task.configurations is past.configurations and torch.equal(task.meta_feature, found)
    assert bytes_of(full.encoder) != bytes_of(latest.encoder)


def test_the_extractor_goes_without_parts_before_and_after_the_warm_up():
    images = np.random.default_rng(0).normal(size=(6, 3, 3, 7)).astype(np.float32)
    task = Task(4, None, images, np.array([6.0, 9.0]))
    own = [dataclasses.replace(data_set, task=task) for data_set in OWN[:2]]
    settings = dataclasses.replace(SETTINGS, batches=2)
    for without in ((), ("statistics",), ("statistics", "attention")):
        recommender = PaperHyperFD(0, settings, own, without=without)
        recommender.start_task(task, candidates(0))
        assert recommender.extractor.without == set(without)
        recommender.end_task(dict(enumerate(candidates(0).vectors[:8, 0].tolist())))
        assert recommender.extractor.without == set(without) and len(recommender.past) == 3
        features = torch.from_numpy(images)
        with torch.no_grad():
            without_a_group = torch.where(torch.arange(3).view(1, 1, 3, 1) == 2, torch.nan, features)
            kept_mean = torch.where(torch.arange(3).view(1, 1, 3, 1) == 2, features[:, :, :2].mean(2, True), features)
            one, other = recommender.extractor(without_a_group), recommender.extractor(kept_mean)
        assert torch.allclose(one, other, atol=1e-5) == ("statistics" in without)
        recommender.start_task(described(0), candidates(0))  # another size
        assert recommender.extractor.without == set(without)
