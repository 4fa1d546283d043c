"""What recommenders are told of data sets with image features."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from nni_hyperfd.benchmark import descriptions
from nni_hyperfd.benchmark.descriptions import as_known
from nni_hyperfd.benchmark.protocol import Protocol, ProtocolError, Regime, course
from nni_hyperfd.benchmark.tables import Table
from nni_hyperfd.method import learning
from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
from nni_hyperfd.space.encoded import EncodedConfigurations

IMAGES, WIDTH, TASKS = 20, 6, 5


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> list[list[learning.OfflineTask]]:
    """Few batches, where a warm-up may take thousands. Gives what was learned from."""
    seen, warm_up = [], learning.warm_up
    monkeypatch.setattr(learning, "warm_up", lambda *args: seen.append(args[2]) or warm_up(*args, max_batches=50))
    return seen


def table() -> Table:
    """Five tasks with images, of which the first two are the server's and like opposite configurations."""
    rng = np.random.default_rng(0)
    images = tuple(rng.normal(place, 1, (IMAGES, 3, 3, WIDTH)).astype(np.float32) for place in range(TASKS))
    counts = tuple(np.array([IMAGES * (place + 1), 30], dtype=np.float32) for place in range(TASKS))
    vectors = rng.random((30, 2), dtype=np.float32)
    performance = np.array([1, -1, 1, 1, -1])[:, None] * vectors[:, 0].astype(float)
    names = [f"t{place}" for place in range(TASKS)]
    described = np.arange(TASKS, dtype=np.float32)[:, None]
    configurations = EncodedConfigurations(vectors)
    return Table("toy", names, performance, configurations, described, (0, 1), images, counts)


def meta_features(own: Table, protocol: Protocol, seed: int = 0) -> dict[str, np.ndarray]:
    return {turn.name: turn.task.meta_feature for turn in course(own, protocol, seed).turns}


def test_a_platform_without_data_sets_has_the_initial_extractor() -> None:
    own = table()
    initial = MetaFeatureExtractor.initial(WIDTH, 0)
    with torch.no_grad():
        wanted = [initial(torch.from_numpy(images)).numpy() for images in own.images]
    np.testing.assert_allclose(as_known(own, [], None, 0).meta_features, wanted, atol=1e-6)
    told = meta_features(own, Protocol(Regime.COLD))
    assert set(told) == {"t2", "t3", "t4"}
    for name, found in told.items():
        np.testing.assert_allclose(found, wanted[own.tasks.index(name)], atol=1e-6)


def test_the_extractor_learns_from_the_platforms_own_data_sets_and_from_no_client() -> None:
    own = table()
    before, warm = as_known(own, [], None, 0).meta_features, as_known(own, [0, 1], None, 0).meta_features
    assert warm.shape == (TASKS, 64) and warm.dtype == np.float32 and not np.allclose(before, warm)
    others = own.performance.copy()
    others[2:] = np.random.default_rng(1).random((3, 30))
    strangers = tuple(images if place < 2 else -images for place, images in enumerate(own.images))
    changed = dataclasses.replace(own, performance=others, images=strangers)
    np.testing.assert_array_equal(as_known(changed, [0, 1], None, 0).meta_features[:2], warm[:2])


def test_what_is_known_is_the_same_for_all_seeds_and_in_any_order_of_the_data_sets() -> None:
    own = table()
    first, other = as_known(own, [0, 1], None, seed=0), as_known(own, [1, 0], None, seed=7)
    np.testing.assert_array_equal(first.meta_features, other.meta_features)


def test_recommenders_that_learn_from_images_keep_them_and_tasks_csv_stays_unseen() -> None:
    own = table()
    known = course(own, Protocol(), 0)
    for told in [data_set.task for data_set in known.offline] + [turn.task for turn in known.turns]:
        assert told.meta_feature.shape == (64,) and told.images.shape == (IMAGES, 3, 3, WIDTH)
    hidden = course(own, Protocol(meta_features=False), 0)
    for told in [data_set.task for data_set in hidden.offline] + [turn.task for turn in hidden.turns]:
        assert told.meta_feature is told.images is told.counts is None


def test_noise_is_on_clients_alone_and_follows_from_the_seed_and_the_data_set() -> None:
    own = table()
    noised = np.array([as_known(own, [0, 1], 3.0, seed).meta_features for seed in range(40)])
    assert (noised[:, :2] == noised[0, :2]).all(), "the platform's own are projected without noise"
    assert (noised[:, 2:] != noised[0, 2:]).any(axis=2)[1:].all()
    spread = noised.std(axis=0).mean(axis=1)
    assert spread[2] == pytest.approx(2 * spread[4], rel=0.25), "60 images are in the bucket of 50, 100 in their own"
    np.testing.assert_array_equal(noised[5], as_known(own, [0, 1], 3.0, 5).meta_features)
    told = meta_features(own, Protocol(noise=3.0), seed=5)
    np.testing.assert_array_equal(told["t2"], noised[5, 2])
    loose = np.array([as_known(own, [0, 1], 1e3, seed).meta_features for seed in range(40)])
    assert loose.std(axis=0)[2:].max() < 0.2 * spread[2:].min()
    assert np.isnan(as_known(own, [], 3.0, 5).meta_features).all(), "without a projection nothing is released"


def test_noise_needs_something_to_be_added_to() -> None:
    bare = dataclasses.replace(table(), images=(), counts=())
    with pytest.raises(ProtocolError, match="Table toy has no image features"):
        course(bare, Protocol(noise=1.0), 0)
    with pytest.raises(ProtocolError, match="withheld"):
        Protocol(noise=1.0, meta_features=False)
    for epsilon in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ProtocolError, match="epsilon must be greater than 0"):
            Protocol(noise=epsilon)
    assert as_known(bare, [0, 1], None, 0) is bare, "tasks.csv stands in where there are no images"


def test_a_warm_up_measures_no_more_pairs_than_a_platform_would(
    short: list[list[learning.OfflineTask]], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_known(table(), [0, 1], None, 0)
    monkeypatch.setattr(descriptions, "PAIRS", 12)
    as_known(table(), [0, 1], None, 0)
    assert [[len(own.performance) for own in known] for known in short] == [[30, 30], [6, 6]]
