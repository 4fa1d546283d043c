"""The paper's recipe as a recommender, and its ablations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from nni_hyperfd.method import RankerSettings, weights
from nni_hyperfd.recommenders.base import Task
from nni_hyperfd.recommenders.continual import (
    FrozenExtractor,
    FrozenRanker,
    LatestDataOnly,
    NoTransformation,
    Oracle,
)
from nni_hyperfd.recommenders.paper import MeasuredDataset, PaperHyperFD
from nni_hyperfd.space.encoded import EncodedConfigurations

# Fast, and far enough for the extractor's space to have moved.
SETTINGS = RankerSettings(learning_rate=3e-3, batches=10, si_weight=0.0)


def candidates(seed, width=3):
    return EncodedConfigurations(np.random.default_rng(seed).random((40, width), dtype=np.float32))


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


def state(network):
    return weights.dumps(network.state_dict())


def test_the_first_task_with_something_to_rank_is_the_warm_up_where_the_server_has_no_data_sets():
    recommender = lead(PaperHyperFD(0, SETTINGS), [0], lambda vectors: 0 * vectors[:, 0])
    assert recommender.warmed is None and not recommender.past
    recommender.end_task(dict(enumerate(candidates(0).vectors[:, 0].tolist())))
    assert recommender.importance is recommender.warmed.importance and len(recommender.past) == 1
    assert recommender.extractor is recommender.warmed.extractor and recommender.encoder is recommender.warmed.encoder
    lead(recommender, [1])
    assert recommender.importance is not recommender.warmed.importance and len(recommender.past) == 2
    assert recommender.encoder is not recommender.warmed.encoder


def test_the_servers_own_data_sets_warm_up_before_the_first_task():
    settings = dataclasses.replace(SETTINGS, exploration=0.0)
    recommender = PaperHyperFD(0, settings, OWN)
    recommender.start_task(described(0), candidates(0))
    assert recommender.warmed is not None
    assert np.corrcoef(recommender.scores(), candidates(0).vectors[:, 0])[0, 1] > 0.5


def test_networks_that_are_warm_already_are_not_warmed_up_again():
    first = PaperHyperFD(0, SETTINGS, OWN)
    first.start_task(described(0), candidates(0))
    extractor = state(first.extractor)
    second = PaperHyperFD(1, SETTINGS, OWN, first.warmed)
    second.start_task(described(0), candidates(0))
    assert second.extractor is first.extractor and second.encoder is first.encoder
    lead(second)
    assert state(second.extractor) != extractor == state(first.extractor), "what is given must stay as it is"


def test_another_size_starts_anew_without_the_servers_data_sets():
    recommender = lead(PaperHyperFD(0, SETTINGS, OWN))
    recommender.start_task(described(3, length=7), candidates(3, width=2))
    assert recommender.warmed is None and not recommender.past and not recommender.offline
    assert recommender.encoder.in_dim == 2 and recommender.extractor.feature_dim == 7


def test_past_meta_features_are_carried_by_least_squares_on_the_servers_data_sets():
    recommender = lead(PaperHyperFD(0, SETTINGS, OWN))
    newest = np.stack([_meta_feature(recommender, own.features, own.counts) for own in recommender.offline])
    for past, landmarks, carried in zip(recommender.past, recommender.landmarks, recommender.carried(), strict=True):
        # Equation 4 with the pull of 0.01 towards the identity, by the normal equations.
        old = landmarks.double().numpy()
        matrix = np.linalg.solve(old.T @ old + 0.01 * np.eye(64), old.T @ newest + 0.01 * np.eye(64))
        expected = past.meta_feature.double().numpy() @ matrix
        np.testing.assert_allclose(carried.meta_feature.numpy(), expected, atol=2e-4)
    assert (recommender.carried()[0].meta_feature - recommender.past[0].meta_feature).norm() > 0.1
    np.testing.assert_allclose(recommender.carried()[-1].meta_feature, recommender.past[-1].meta_feature, atol=1e-4)


def test_the_oracle_describes_past_tasks_by_the_newest_extractor():
    recommender = lead(Oracle(0, SETTINGS, OWN))
    for seed, carried in enumerate(recommender.carried()):
        images, counts = recommender.described(described(seed))
        np.testing.assert_array_equal(carried.meta_feature, _meta_feature(recommender, images, counts).astype("f4"))
    assert (recommender.carried()[0].meta_feature - recommender.past[0].meta_feature).norm() > 0.1


def test_without_transformation_past_meta_features_are_as_they_were_made():
    recommender = lead(NoTransformation(0, SETTINGS, OWN))
    assert all(a is b for a, b in zip(recommender.carried(), recommender.past, strict=True))


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
    extractor, encoder = state(recommender.extractor), state(recommender.encoder)
    lead(recommender)
    assert (state(recommender.extractor) != extractor) == extractor_learns
    assert (state(recommender.encoder) != encoder) == encoder_learns


def test_latest_data_only_rehearses_nothing():
    full, latest = (lead(kind(0, SETTINGS, OWN)) for kind in (PaperHyperFD, LatestDataOnly))
    assert latest.rehearsed() == ([], [])
    assert [len(kind) for kind in full.rehearsed()] == [3, 3]


def _meta_feature(recommender, features, counts):
    with torch.no_grad():
        return recommender.extractor(features, counts).double().numpy()


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
        assert recommender.extractor.without == set(without) and len(recommender.past) == 1
        features = torch.from_numpy(images)
        with torch.no_grad():
            one, other = (recommender.extractor(features, torch.tensor(counts)) for counts in ([6.0, 9.0], [1.0, 1.0]))
        assert torch.equal(one, other) == ("statistics" in without)
        recommender.start_task(described(0), candidates(0))  # another size
        assert recommender.extractor.without == set(without)
