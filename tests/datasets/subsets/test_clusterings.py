from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from nni_hyperfd.datasets.subsets import clusterings
from nni_hyperfd.datasets.subsets.clusterings import CLUSTERINGS, cluster, numbers_of_clusters

KINDS = np.repeat([0, 1, 2], 20)
RANDOM = np.random.default_rng(0)
BLOBS = (RANDOM.normal(size=(3, 30))[KINDS] * 8 + RANDOM.normal(size=(60, 30))).astype(np.float32)


@pytest.mark.parametrize("name", [name for name in CLUSTERINGS if not name.startswith("dbscan")])
def test_three_heaps_are_found_again_and_again(name):
    labels = cluster(BLOBS, name, [3, 5], seed=1)
    assert labels.shape == (2, 60) and set(labels[1]) == set(range(5))
    if name != "kmeans_random":  # which may begin with two centres in one heap
        assert adjusted_rand_score(KINDS, labels[0]) == 1
    np.testing.assert_array_equal(cluster(BLOBS, name, [3, 5], seed=1), labels)


def test_the_table_has_nine_lines():
    assert len(CLUSTERINGS) == 9


def test_dbscan_finds_the_number_itself():
    cosine, l2 = (cluster(BLOBS, f"dbscan_{metric}", [3, 5], seed=0) for metric in ("cosine", "l2"))
    assert cosine.shape == (1, 60) and set(cosine[0]) == {0} and l2.shape == (1, 60)
    # Standardised, points of 400 numbers lie 28 apart: all of it is noise.
    wide = np.random.default_rng(0).normal(size=(60, 400)).astype(np.float32)
    assert set(cluster(wide, "dbscan_l2", [3], seed=0)[0]) == {-1}
    heaps = np.concatenate([wide[:1], -wide[:1]])[KINDS % 2] + wide / 100
    labels = cluster(heaps.astype(np.float32), "dbscan_l2", [3], seed=0)[0]
    assert labels.max() == 1 and adjusted_rand_score(KINDS % 2, labels) == 1


def test_most_images_join_the_nearest_of_those_that_are_fitted(monkeypatch):
    monkeypatch.setattr(clusterings, "FITTED", 30)
    monkeypatch.setattr(clusterings, "_CHUNK", 7)
    labels = cluster(BLOBS, "agglomerative", [3], seed=0)
    assert adjusted_rand_score(KINDS, labels[0]) == 1


def test_a_feature_that_says_nothing():
    assert cluster(np.ones((9, 2), np.float32), "agglomerative", [2], seed=0).shape == (1, 9)


@pytest.mark.parametrize(
    ("images", "smallest", "expected"), [(16097, 800, [2, 4, 6, 11, 20]), (60, 30, [2]), (20, 1, [2, 4, 6, 11, 20])]
)
def test_numbers_of_clusters(images, smallest, expected):
    assert numbers_of_clusters(images, smallest) == expected
