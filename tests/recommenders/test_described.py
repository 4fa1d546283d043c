"""HyperFD on fixed descriptions, and the two places where a variant takes over from the paper's extractor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nni_hyperfd.recommenders.base import Task
from nni_hyperfd.recommenders.described import LinearExtractor, ResNetHyperFD, StatisticsHyperFD
from nni_hyperfd.space.encoded import EncodedConfigurations

CANDIDATES = EncodedConfigurations(np.random.default_rng(0).random((60, 2), dtype=np.float32))


def described(recommender, **task):
    (vector,) = recommender.described(Task(4, **task))
    return vector.tolist()


def test_image_features_by_hand():
    images = np.zeros((2, 3, 3, 1), dtype=np.float32)
    images[0, 0, 0], images[1, 0, 0] = 1, 5
    images[0, 0, 1], images[1, 0, 1] = np.nan, 3  # the second image alone has this group
    images[:, 0, 2] = np.nan  # no image has this one
    vector = np.array([3, 3, 0, 0, 0, 0, 0, 0, 0])
    expected = (vector - vector.mean()) / vector.std()
    assert described(ResNetHyperFD(), images=images) == pytest.approx(expected.tolist(), abs=1e-4)
    assert described(ResNetHyperFD(), meta_feature=vector) == pytest.approx(expected.tolist(), abs=1e-4)


def test_statistics_by_hand():
    counts = np.array([7, 99], dtype=np.float32)
    logarithms = pytest.approx([np.log(8), np.log(100)], rel=1e-5)
    assert described(StatisticsHyperFD(), counts=counts, meta_feature=np.ones(5)) == logarithms
    assert described(StatisticsHyperFD(), meta_feature=np.array([7, -99, np.nan])) == [
        pytest.approx(np.log(8)),
        pytest.approx(-np.log(100)),
        0,
    ]


@pytest.mark.parametrize("kind", [ResNetHyperFD, StatisticsHyperFD])
@pytest.mark.parametrize("meta_feature", [None, np.zeros(0), np.full(1, np.nan)])
def test_nothing_is_known(kind, meta_feature):
    assert described(kind(), meta_feature=meta_feature) == [0]


@pytest.mark.parametrize("kind", [ResNetHyperFD, StatisticsHyperFD])
def test_both_networks_learn_as_in_the_paper(kind):
    recommender = kind(3)
    for place in range(2):
        task = Task(4, np.array([1.0, 5.0, place]), counts=np.array([50.0, 100.0 + place]))
        recommender.start_task(task, CANDIDATES)
        assert isinstance(recommender.extractor, LinearExtractor)
        before = [recommender.extractor.layer.weight.clone(), recommender.encoder.mlp.layers[0].weight.clone()]
        recommender.end_task(dict(enumerate(CANDIDATES.vectors[:, 0].tolist())))
        after = [recommender.extractor.layer.weight, recommender.encoder.mlp.layers[0].weight]
        assert not any(torch.equal(b, a) for b, a in zip(before, after, strict=True))
    recommender.start_task(task, CANDIDATES)
    meta_feature = recommender.extractor.layer(recommender.described(task))[0]
    scores = recommender.encoder(CANDIDATES) @ meta_feature
    assert recommender.scores() == pytest.approx(scores.detach().numpy())
    torch.testing.assert_close(recommender.past[-1].meta_feature, meta_feature.detach())
    assert set(recommender.importance) == {"layer.weight", "layer.bias"}


def test_weights_follow_from_the_seed_alone():
    state = torch.random.get_rng_state()
    first, again, other = (ResNetHyperFD().new_extractor(5, seed).layer.weight for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, again) and not torch.equal(first, other)
