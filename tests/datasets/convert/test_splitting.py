from __future__ import annotations

from collections import Counter

import pytest

from nni_hyperfd.datasets.convert.splitting import rule, split


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


@pytest.mark.parametrize(
    ("official", "resplit", "words"),
    [
        (["train", "val"], False, "official: train, val"),
        (["train", "test"], False, "official: train, test; val is a tenth of the official train, drawn with seed 3"),
        ([None], False, "drawn 6 : 1 : 3 with seed 3, as the source names no splits"),
        (["train", "val"], True, "drawn 6 : 1 : 3 with seed 3, in place of the official train, val"),
        (["test", None, None], False, "official: test; 2 images that the source puts in none are drawn 6 : 1 : 3"),
    ],
)
def test_the_rule_is_told_in_words(official, resplit, words):
    assert rule(official, 3, resplit).startswith(words)


def test_training_images_alone_are_validated_on_a_tenth():
    assert Counter(split(["train"] * 20, seed=0)) == {"train": 18, "val": 2}
