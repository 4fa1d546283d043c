from __future__ import annotations

import numpy as np
import pytest

from nni_hyperfd.datasets.subsets.filters import Limits, select

SPLITS = np.array(["train"] * 12 + ["val"] * 4 + ["test"] * 4)
ALL = np.ones(20, bool)
LIMITS = Limits(smallest=5, largest=10, balance=0.5, overlap=0.8)


def members(train, val, test, first=0):
    return np.concatenate([np.arange(train) + first, np.arange(val) + 12, np.arange(test) + 16])


@pytest.mark.parametrize(
    ("own", "reason"),
    [
        (members(3, 1, 1), None),
        (members(2, 1, 1), "too small"),
        (members(6, 2, 2), None),
        (members(7, 2, 2), "too large"),
        (members(8, 1, 1), None),  # a tenth, where a fifth of all images is: just the half
        (members(9, 1, 0), "unbalanced"),
        (members(3, 4, 3), None),
        (members(2, 4, 4), "unbalanced"),
    ],
)
def test_size_and_balance(own, reason):
    chosen, dropped = select([own], SPLITS, ALL, LIMITS)
    assert (chosen, {name for name, count in dropped.items() if count}) == (([], {reason}) if reason else ([0], set()))


def test_a_split_without_a_usable_face_is_unbalanced():
    usable = ALL.copy()
    usable[12] = False
    assert select([members(3, 1, 1)], SPLITS, usable, LIMITS)[0] == []
    assert select([members(3, 2, 1)], SPLITS, usable, LIMITS)[0] == [0]


def test_a_source_without_a_test_split():
    splits = np.array(["train"] * 16 + ["val"] * 4)
    assert select([np.arange(11, 18)], splits, ALL, LIMITS)[0] == [0]


def test_the_first_of_near_duplicates_is_select():
    first, same, near, other = members(6, 2, 2), members(6, 2, 2), members(6, 2, 1), members(6, 2, 2, first=4)
    sets = [set(one) for one in (first, near, other)]
    assert len(sets[0] & sets[1]) / len(sets[0] | sets[1]) == 0.9
    assert len(sets[0] & sets[2]) / len(sets[0] | sets[2]) == 6 / 14
    chosen, dropped = select([first, same, near, other], SPLITS, ALL, LIMITS)
    assert chosen == [0, 3] and dropped["near-duplicate"] == 2
    assert select([near, first], SPLITS, ALL, Limits(5, 10, 0.5, 0.91))[0] == [0, 1]


def test_no_clusters():
    assert select([], SPLITS, ALL, LIMITS)[0] == []
