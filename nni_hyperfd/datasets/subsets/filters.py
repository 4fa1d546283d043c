"""Which clusters can be data sets of their own.

The HyperFD paper (appendix B.4) keeps clusters of at least 800 of WIDER FACE's 16,097 images, 5 %. It drops those that
are too large, without saying where that begins, and those whose splits are "too deviated from balance", without a
number. Here a half is used for both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

SMALLEST, LARGEST = 0.05, 0.5
"""Default limits of a subset's size, as shares of all images."""


@dataclass(frozen=True)
class Limits:
    """What a subset must fulfil.

    Attributes:
        smallest: minimum number of images.
        largest: maximum number of images.
        balance: minimum share of each split in the subset, as a fraction (0 to 1) of its share of all images.
        overlap: Jaccard index, above 0, from which a subset is a near-duplicate of another one.
    """

    smallest: int
    largest: int
    balance: float
    overlap: float


def select(
    clusters: Sequence[NDArray[np.int_]], splits: NDArray[np.str_], usable: NDArray[np.bool_], limits: Limits
) -> tuple[list[int], Counter[str]]:
    """Select the clusters that become subsets; of near-duplicates the first is kept.

    A cluster is balanced if it has its share of images with a usable face, and at least one of them, in every split.

    Args:
        clusters: for each the indices of its images.
        splits: (n,) split of each image.
        usable: (n,) whether each image has a usable face.
        limits: what to fulfil.

    Returns:
        Indices of the selected clusters, and the numbers of dropped ones by reason.
    """
    dropped: Counter[str] = Counter()
    names, counts = np.unique(splits[usable], return_counts=True)
    shares = counts / counts.sum()
    suitable = []
    for index, members in enumerate(clusters):
        if len(members) < limits.smallest:
            dropped["too small"] += 1
        elif len(members) > limits.largest:
            dropped["too large"] += 1
        elif not _is_balanced(splits[members][usable[members]], names, limits.balance * shares):
            dropped["unbalanced"] += 1
        else:
            suitable.append(index)
    selected = _distinct([clusters[index] for index in suitable], len(splits), limits.overlap)
    dropped["near-duplicate"] += len(suitable) - len(selected)
    return [suitable[index] for index in selected], dropped


def _is_balanced(splits: NDArray[np.str_], names: NDArray[np.str_], least: NDArray[np.float64]) -> bool:
    counts = np.array([np.sum(splits == name) for name in names])
    return bool((counts >= np.maximum(1, least * len(splits))).all())


def _distinct(clusters: Sequence[NDArray[np.int_]], images: int, overlap: float) -> list[int]:
    """Indices of the clusters that are no near-duplicates of one kept before."""
    sizes = np.array([len(members) for members in clusters], int)
    if not len(sizes):
        return []
    rows = np.repeat(np.arange(len(sizes)), sizes)
    table = csr_array((np.ones(len(rows), np.int32), (rows, np.concatenate(clusters))), shape=(len(sizes), images))
    shared = (table @ table.T).toarray()
    jaccard = shared / (sizes[:, None] + sizes - shared)
    result: list[int] = []
    for index in range(len(sizes)):
        if not (jaccard[index, result] >= overlap).any():
            result.append(index)
    return result
