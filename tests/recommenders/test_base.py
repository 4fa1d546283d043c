from __future__ import annotations

import numpy as np
import pytest

from nni_hyperfd.recommenders.base import Task
from nni_hyperfd.space.encoded import EncodedConfigurations
from nni_hyperfd.space.graphs import Graphs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": -1}, "budget"),
        ({"meta_feature": np.zeros((1, 64))}, "one row"),
        ({"images": np.zeros((4, 3, 5))}, r"shape \(N, 3, 3, D\)"),
        ({"images": np.zeros((4, 3, 2, 5))}, r"shape \(N, 3, 3, D\)"),
        ({"images": np.zeros((0, 3, 3, 5))}, r"shape \(N, 3, 3, D\)"),
        ({"images": np.full((1, 3, 3, 5), np.inf)}, "finite, or NaN throughout"),
        ({"images": np.tile([0.0, np.nan], (1, 3, 3, 1))}, "finite, or NaN throughout"),
        ({"counts": np.zeros(3)}, "images and boxes"),
        ({"counts": np.array([5.0, -1.0])}, "images and boxes"),
        ({"counts": np.array([5.0, np.nan])}, "images and boxes"),
    ],
)
def test_what_describes_no_task_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Task(**changes)


def test_what_may_be_unknown_of_a_task():
    Task(meta_feature=np.array([np.nan, np.inf]))
    Task(0, np.zeros(0), np.full((1, 3, 3, 5), np.nan), np.zeros(2))


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros((0, 2)), "at least one row"),
        (np.zeros(2), "at least one row"),
        (np.array([[0.0, np.nan]]), "finite"),
        (np.array([[0.0, np.inf]]), "finite"),
    ],
)
def test_what_makes_no_candidates_is_refused(vectors, message):
    with pytest.raises(ValueError, match=message):
        EncodedConfigurations(vectors)


def test_candidates_and_their_graphs():
    graphs = Graphs(np.array([[0, 1], [1, -1]]), np.zeros((2, 2, 2)), num_ops=2)
    candidates = EncodedConfigurations(np.eye(2), graphs)
    assert len(candidates) == 2 and candidates[[1]].graphs.ops.tolist() == [[1, -1]]
    with pytest.raises(ValueError, match="3 configurations but 2 graphs"):
        EncodedConfigurations(np.zeros((3, 1)), graphs)
