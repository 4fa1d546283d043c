from __future__ import annotations

import numpy as np
import pytest

from nni_hyperfd.belief.distances import distances


def test_distances_by_hand():
    """Entries are scaled to deviation 1 over the tasks where they are known; an unknown one counts as 2."""
    rows = [np.array([1.0, 6.0]), np.array([3.0, 2.0]), np.array([np.nan, 4.0]), np.array([2.0, np.inf])]
    apart = distances(rows)
    first, second = np.std([1.0, 3.0, 2.0]), np.std([6.0, 2.0, 4.0])
    expected = {
        (0, 1): (2 / first) ** 2 + (4 / second) ** 2,
        (0, 2): 2 + (2 / second) ** 2,
        (0, 3): (1 / first) ** 2 + 2,
        (2, 3): 2 + 2,
    }
    for (a, b), squares in expected.items():
        assert apart[a, b] == apart[b, a] == pytest.approx(np.sqrt(squares / 2))
    assert np.diag(apart).tolist() == [0, 0, 0, 0]


def test_a_task_without_a_meta_feature_or_with_one_of_another_length_is_at_the_distance_of_strangers():
    """The last task's length counts; what the others have to say is compared among themselves."""
    old, new = np.array([0.0, 1.0, 2.0]), np.array([[0.0, 1.0], [4.0, 1.0], [5.0, 1.0]])
    apart = distances([old, new[0], None, new[1], new[2]])
    assert np.allclose(apart[[0, 0, 0, 0, 2, 2, 2], [1, 2, 3, 4, 1, 3, 4]], np.sqrt(2))
    differences = np.array([4, 5, 1]) / np.std([0, 4, 5])  # the second entry is the same for all and says nothing
    assert np.allclose(apart[[1, 1, 3], [3, 4, 4]], np.sqrt(differences**2 / 2))


def test_without_any_meta_feature_all_tasks_are_strangers():
    assert np.allclose(distances([None, None]), np.sqrt(2) * (1 - np.eye(2)))
    assert np.allclose(distances([np.zeros(0), np.zeros(0)]), np.sqrt(2) * (1 - np.eye(2)))
    assert distances([None]).tolist() == [[0]]
