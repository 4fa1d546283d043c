"""The nine clusterings of Table 11 of the HyperFD paper.

What the table leaves open: features are standardised; agglomerative clustering with the Manhattan distance joins by the
largest distance (Ward's rule, scikit-learn's default, is defined for the Euclidean distance only); t-SNE starts from 20
principal components; noise of DBSCAN is in no cluster. With `metric=cosine` no distance exceeds 2, so that DBSCAN with
eps=10 always finds one cluster of all images: this is a row of the paper's table, but gives no subset.
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
"""Maximum number of images that a clustering is fitted on, drawn by seed, because agglomerative clustering and DBSCAN
need memory for every pair of them. Any other image joins the cluster of the nearest of these."""

_COMPONENTS = 20
_CHUNK = 1000

Features = NDArray[np.float32]
"""(n, d): n images."""
Labels = NDArray[np.int_]
"""(n,): number of each image's cluster, from 0; -1 for none."""
Clustering = Callable[[Features, Sequence[int], int], list[Labels]]
"""From standardised features, numbers of clusters and a seed to the labels for each number of clusters."""


def _k_means(features: Features, ks: Sequence[int], seed: int, init: str = "k-means++") -> list[Labels]:
    return [KMeans(k, max_iter=2000, init=init, random_state=seed).fit_predict(features) for k in ks]


def _principal(features: Features, seed: int) -> Features:
    components: Features = PCA(min(_COMPONENTS, *features.shape), random_state=seed).fit_transform(features)
    return components


def _embedded(features: Features, seed: int) -> Features:
    """Coordinates (n, 2) of t-SNE."""
    perplexity = min(30, (len(features) - 1) / 3)
    coordinates: Features = TSNE(2, perplexity=perplexity, random_state=seed).fit_transform(_principal(features, seed))
    return coordinates


def _dbscan(features: Features, metric: str) -> list[Labels]:
    return [DBSCAN(eps=10, metric=metric).fit_predict(features)]


def _each(make: Callable[[int], Any], features: Features, ks: Sequence[int]) -> list[Labels]:
    return [make(k).fit_predict(features) for k in ks]


CLUSTERINGS: dict[str, Clustering] = {
    "kmeans": _k_means,
    "kmeans_random": lambda features, ks, seed: _k_means(features, ks, seed, init="random"),
    "pca_kmeans": lambda features, ks, seed: _k_means(_principal(features, seed), ks, seed),
    "tsne_kmeans": lambda features, ks, seed: _k_means(_embedded(features, seed), ks, seed),
    "dbscan_l2": lambda features, ks, seed: _dbscan(features, "l2"),
    "dbscan_cosine": lambda features, ks, seed: _dbscan(features, "cosine"),
    "agglomerative": lambda features, ks, seed: _each(AgglomerativeClustering, features, ks),
    "agglomerative_manhattan": lambda features, ks, seed: _each(
        lambda k: AgglomerativeClustering(k, metric="manhattan", linkage="complete"), features, ks
    ),
    "birch": lambda features, ks, seed: _each(lambda k: Birch(n_clusters=k), features, ks),
}
"""The clusterings by name, in the order of the table."""

FIND_NUMBER = ("dbscan_l2", "dbscan_cosine")
"""Those that find the number of clusters themselves; they return labels once, whatever numbers are given."""


def cluster(features: Features, name: str, ks: Sequence[int], seed: int) -> NDArray[np.int16]:
    """Cluster images by their features.

    Args:
        features: (n, d), n > max(ks); they are standardised here.
        name: one of `CLUSTERINGS`.
        ks: numbers of clusters.
        seed: of the clustering, and of the choice of images that it is fitted on.

    Returns:
        Labels (len(ks), n), or (1, n) for those of `FIND_NUMBER`; -1 for noise.
    """
    random = np.random.default_rng(seed)
    count = len(features)
    fitted = np.sort(random.choice(count, FITTED, replace=False)) if count > FITTED else np.arange(count)
    scaler = StandardScaler()
    standardised = scaler.fit_transform(features[fitted])
    labels = np.stack(CLUSTERINGS[name](standardised, ks, seed))
    if count > FITTED:
        neighbours = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(standardised)
        chunks = (scaler.transform(features[start : start + _CHUNK]) for start in range(0, count, _CHUNK))
        nearest = [neighbours.kneighbors(chunk, return_distance=False)[:, 0] for chunk in chunks]
        labels = labels[:, np.concatenate(nearest)]
    return labels.astype(np.int16)


def numbers_of_clusters(images: int, smallest: int) -> list[int]:
    """Choose numbers of clusters.

    Args:
        images: number of images.
        smallest: minimum number of images in a subset.

    Returns:
        At most five, evenly spaced by ratio, from 2 to the number at which the mean size of a cluster is `smallest`.
    """
    return sorted({round(k) for k in np.geomspace(2, images / smallest, 5)})
