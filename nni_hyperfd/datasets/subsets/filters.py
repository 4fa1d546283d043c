"""Which clusters can be data sets of their own.

The paper keeps those of at least 800 of WIDER FACE's 16,097 images, 5 %, drops what is too large, does not say where
that begins, and drops splits "too deviated from balance", without a number. Here the latter two are the half.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

SMALLEST, LARGEST = 0.05, 0.5
"""Shares of the images."""


@dataclass(frozen=True)
class Limits:
    """``smallest`` and ``largest``: images; ``balance``: least share of a split, over its share of all images, 0 to 1;
    ``overlap``: least Jaccard index at which a subset is a near-duplicate, above 0."""

    smallest: int
    largest: int
    balance: float
    overlap: float


def kept(
    members: Sequence[NDArray[np.int_]], splits: NDArray[np.str_], usable: NDArray[np.bool_], limits: Limits
) -> tuple[list[int], Counter[str]]:
    """Places of the subsets that are kept, and how many were dropped, by reason. Of near-duplicates the first is kept.

    ``members``: the images of each, as places in ``splits`` and ``usable``. Balanced is what has its share of images
    with a usable face, and at least one, in every split.
    """
    dropped: Counter[str] = Counter()
    names, counts = np.unique(splits[usable], return_counts=True)
    shares = counts / counts.sum()
    fits = []
    for place, own in enumerate(members):
        if len(own) < limits.smallest:
            dropped["too small"] += 1
        elif len(own) > limits.largest:
            dropped["too large"] += 1
        elif not _is_balanced(splits[own][usable[own]], names, limits.balance * shares):
            dropped["unbalanced"] += 1
        else:
            fits.append(place)
    result = _distinct([members[place] for place in fits], len(splits), limits.overlap)
    dropped["near-duplicate"] += len(fits) - len(result)
    return [fits[place] for place in result], dropped


def _is_balanced(splits: NDArray[np.str_], names: NDArray[np.str_], least: NDArray[np.float64]) -> bool:
    counts = np.array([np.sum(splits == name) for name in names])
    return bool((counts >= np.maximum(1, least * len(splits))).all())


def _distinct(members: Sequence[NDArray[np.int_]], images: int, overlap: float) -> list[int]:
    sizes = np.array([len(own) for own in members], int)
    if not len(sizes):
        return []
    rows = np.repeat(np.arange(len(sizes)), sizes)
    table = csr_array((np.ones(len(rows), np.int32), (rows, np.concatenate(members))), shape=(len(sizes), images))
    shared = (table @ table.T).toarray()
    jaccard = shared / (sizes[:, None] + sizes - shared)
    result: list[int] = []
    for place in range(len(sizes)):
        if not (jaccard[place, result] >= overlap).any():
            result.append(place)
    return result
