from __future__ import annotations

from collections import Counter

import pytest

from nni_hyperfd.datasets.convert.splitting import split


@pytest.mark.parametrize(
    "counts", [(12477, 2079, 6239), (3703, 617, 1851), (2554, 425, 1278), (1693, 282, 846), (511, 85, 255)]
)
def test_counts_are_those_of_table_7(counts):
    found = Counter(split([None] * sum(counts), seed=0))
    assert (found["train"], found["val"], found["test"]) == counts


@pytest.mark.parametrize("counts", [(23261, 2585, 4927), (16934, 1881, 4708)])
def test_a_tenth_of_an_official_training_split_validates(counts):
    train, val, test = counts
    found = Counter(split(["train"] * (train + val) + ["test"] * test, seed=0))
    assert (found["train"], found["val"], found["test"]) == counts


def test_official_splits_stay_and_the_seed_decides_the_others():
    official = ["train", "val", "train"]
    assert split(official, seed=3) == official
    free = [None] * 50
    assert split(free, 1) == split(free, 1) != split(free, 2)
    assert split([], 0) == []
