from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from nni_hyperfd.space.encoded import EncodedConfigurations
from nni_hyperfd.space.graphs import Graphs
from support.encoded import BESIDE, KINDS, configurations

GRAPHS = Graphs(np.array([[0, 1], [1, -1]]), np.zeros((2, 2, 2)), num_ops=2)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros((0, 2)), "at least one row"),
        (np.zeros(2), "at least one row"),
        (np.zeros((1, 2, 3)), "at least one row"),
        (np.zeros((3, 0)), "at least one number"),
        (np.array([[0.0, np.nan]]), "finite"),
        (np.array([[0.0, np.inf]]), "finite"),
    ],
)
def test_what_makes_no_configurations_is_refused(vectors, message):
    with pytest.raises(ValueError, match=message):
        EncodedConfigurations(vectors)


def test_graphs_are_those_of_the_same_configurations():
    assert len(EncodedConfigurations(np.eye(2), GRAPHS)) == 2
    with pytest.raises(ValueError, match="3 configurations but 2 graphs"):
        EncodedConfigurations(np.zeros((3, 1)), GRAPHS)


@pytest.mark.parametrize("beside", [(2,), (-1,), (0, 1, 5)])
def test_columns_beside_the_graphs_have_to_exist(beside):
    assert EncodedConfigurations(np.eye(2), GRAPHS, (1,)).beside == (1,)
    with pytest.raises(ValueError, match=r"Columns \(.*\) beside the graphs do not exist"):
        EncodedConfigurations(np.eye(2), GRAPHS, beside)


def test_without_graphs_no_column_is_beside_them():
    with pytest.raises(ValueError, match="do not exist"):
        EncodedConfigurations(np.eye(2), None, (1,))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("indices", [[3], [4, 0, 4], np.array([1, 2])])
def test_some_of_the_configurations(kind, indices):
    whole = configurations(kind, 5)
    some = whole[indices]
    assert len(some) == len(indices) and some.width == whole.width == whole.vectors.shape[1]
    assert some.beside == whole.beside == (BESIDE if kind == "joint" else ())
    np.testing.assert_array_equal(some.vectors, whole.vectors[indices])
    assert (some.graphs is None) == (kind == "hpo")
    if some.graphs is not None:
        np.testing.assert_array_equal(some.graphs.ops, whole.graphs.ops[indices])
        np.testing.assert_array_equal(some.graphs.adjacency, whole.graphs.adjacency[indices])
        assert (some.graphs.num_ops, some.graphs.num_stages) == (whole.graphs.num_ops, whole.graphs.num_stages)


def test_none_of_the_configurations_are_no_configurations():
    with pytest.raises(ValueError, match="at least one row"):
        configurations("hpo", 5)[[]]


def test_importing_spaces_imports_neither_nni_nor_torch():
    code = "import sys, nni_hyperfd.space; assert not {'nni', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
