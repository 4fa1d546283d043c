"""The nine clusterings of Table 11.

What the table leaves open: features are standardised; agglomerative clustering with the Manhattan distance joins by the
largest distance (Ward's rule, scikit-learn's default, knows only the Euclidean one); t-SNE starts from 20 components;
noise of DBSCAN is in no cluster. With `metric=cosine` no distance exceeds 2, so DBSCAN with eps=10 always finds one
cluster of everything: it is the paper's line and gives no subset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import DBSCAN, AgglomerativeClustering, Birch, KMeans
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

FITTED = 2000
"""Images that a clustering is fitted on, drawn by seed; every other one joins the nearest of them. Agglomerative
clustering and DBSCAN need memory for every pair."""

_COMPONENTS = 20
_CHUNK = 1000

Points = NDArray[np.float32]
Clustering = Callable[[Points, Sequence[int], int], list[NDArray[np.int_]]]


def _k_means(points: Points, ks: Sequence[int], seed: int, init: str = "k-means++") -> list[NDArray[np.int_]]:
    return [KMeans(k, max_iter=2000, init=init, random_state=seed).fit_predict(points) for k in ks]


def _principal(points: Points, seed: int) -> Points:
    return PCA(min(_COMPONENTS, *points.shape), random_state=seed).fit_transform(points)


def _embedded(points: Points, seed: int) -> Points:
    perplexity = min(30, (len(points) - 1) / 3)
    return TSNE(2, perplexity=perplexity, random_state=seed).fit_transform(_principal(points, seed))


def _dbscan(points: Points, metric: str) -> list[NDArray[np.int_]]:
    return [DBSCAN(eps=10, metric=metric).fit_predict(points)]


def _each(make: Callable[[int], Any], points: Points, ks: Sequence[int]) -> list[NDArray[np.int_]]:
    return [make(k).fit_predict(points) for k in ks]


CLUSTERINGS: dict[str, Clustering] = {
    "kmeans": _k_means,
    "kmeans_random": lambda points, ks, seed: _k_means(points, ks, seed, init="random"),
    "pca_kmeans": lambda points, ks, seed: _k_means(_principal(points, seed), ks, seed),
    "tsne_kmeans": lambda points, ks, seed: _k_means(_embedded(points, seed), ks, seed),
    "dbscan_l2": lambda points, ks, seed: _dbscan(points, "l2"),
    "dbscan_cosine": lambda points, ks, seed: _dbscan(points, "cosine"),
    "agglomerative": lambda points, ks, seed: _each(AgglomerativeClustering, points, ks),
    "agglomerative_manhattan": lambda points, ks, seed: _each(
        lambda k: AgglomerativeClustering(k, metric="manhattan", linkage="complete"), points, ks
    ),
    "birch": lambda points, ks, seed: _each(lambda k: Birch(n_clusters=k), points, ks),
}
"""By name, in the order of the table: from standardised points (n, d), numbers of clusters and a seed to labels (n,)
for each number, or for the one that it finds itself."""

FIND_NUMBER = ("dbscan_l2", "dbscan_cosine")


def cluster(features: NDArray[np.float32], name: str, ks: Sequence[int], seed: int) -> NDArray[np.int16]:
    """Labels (len(ks) or 1, n) of (n, d) features, n > max(ks); -1 for noise."""
    random = np.random.default_rng(seed)
    count = len(features)
    places = np.sort(random.choice(count, FITTED, replace=False)) if count > FITTED else np.arange(count)
    scaler = StandardScaler()
    points = scaler.fit_transform(features[places])
    labels = np.stack(CLUSTERINGS[name](points, ks, seed))
    if count > FITTED:
        index = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(points)
        chunks = (scaler.transform(features[start : start + _CHUNK]) for start in range(0, count, _CHUNK))
        labels = labels[:, np.concatenate([index.kneighbors(chunk, return_distance=False)[:, 0] for chunk in chunks])]
    return labels.astype(np.int16)


def numbers_of_clusters(images: int, smallest: int) -> list[int]:
    """At most five, evenly spaced by ratio from 2 to the number at which the mean cluster is as small as allowed."""
    return sorted({round(k) for k in np.geomspace(2, images / smallest, 5)})
