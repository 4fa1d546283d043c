from __future__ import annotations

import numpy as np
import pytest

from nni_hyperfd.space.graphs import Graphs
from nni_hyperfd.space.sketch import SIGNS, graph_sketch


def random_graphs(n, nodes=7, num_ops=4, seed=0):
    rng = np.random.default_rng(seed)
    adjacency = np.triu(rng.random((n, nodes, nodes)) < 0.4, 1)
    return Graphs(rng.integers(num_ops, size=(n, nodes)), adjacency, num_ops)


def names_by_hand(graphs, graph):
    """Counts of all names of a graph's nodes, as nested tuples."""
    nodes = [node for node in range(graphs.ops.shape[1]) if graphs.ops[graph, node] >= 0]
    names, counts = {node: int(graphs.ops[graph, node]) for node in nodes}, {}
    for _ in range(2):
        into, out_of = graphs.adjacency[graph].T, graphs.adjacency[graph]
        names = {
            node: (
                names[node],
                *(tuple(sorted((names[m] for m in nodes if e[node, m]), key=repr)) for e in (into, out_of)),
            )
            for node in nodes
        }
        for name in names.values():
            counts[name] = counts.get(name, 0) + 1
    return counts


def test_distances_approximate_those_of_counts_of_names():
    """Chains of twelve nodes, of which more and more differ from the first chain."""
    ops = np.tile(np.random.default_rng(0).integers(3, size=12), (12, 1))
    for graph in range(12):
        ops[graph, :graph] = (ops[graph, :graph] + 1) % 3
    graphs = Graphs(ops, np.tile(np.eye(12, k=1), (12, 1, 1)), 3)
    sketch = (graph_sketch(graphs)[:, 3:].astype(float) - 0.5) * np.sqrt(48 * 12)
    counts = [names_by_hand(graphs, graph) for graph in range(len(graphs))]
    ours, exact = [], []
    for a in range(12):
        for b in range(a):
            union = {*counts[a], *counts[b]}
            exact.append(sum((counts[a].get(name, 0) - counts[b].get(name, 0)) ** 2 for name in union))
            ours.append(((sketch[a] - sketch[b]) ** 2).sum() / SIGNS)
    assert np.corrcoef(ours, exact)[0, 1] > 0.5
    assert np.mean(ours) == pytest.approx(np.mean(exact), rel=0.25)


def test_operations_are_counted():
    graphs = Graphs(np.array([[0, 0, 1, -1], [1, 1, 1, 1]]), np.zeros((2, 4, 4)), 2)
    assert np.allclose(graph_sketch(graphs)[:, :2], 0.5 + (np.array([[2, 1], [0, 4]]) - 2) / np.sqrt(6))


def test_the_order_of_nodes_does_not_matter():
    graphs = random_graphs(20)
    order = np.random.default_rng(1).permutation(7)
    shuffled = Graphs(graphs.ops[:, order], graphs.adjacency[:, order][:, :, order], 4)
    assert np.array_equal(graph_sketch(graphs), graph_sketch(shuffled))


def test_a_missing_node_is_no_node():
    chain = np.eye(3, k=1)[None]
    missing = Graphs(np.array([[0, 1, -1]]), chain, 2)
    without = chain.copy()
    without[0, 1, 2] = 0
    assert np.array_equal(graph_sketch(missing), graph_sketch(Graphs(missing.ops, without, 2)))


def test_directions_and_operations_matter():
    chain = np.array([[[0, 1, 0], [0, 0, 1], [0, 0, 0]]])
    forth, back = (graph_sketch(Graphs(np.array([[0, 1, 2]]), a, 3)) for a in (chain, chain.transpose(0, 2, 1)))
    other = graph_sketch(Graphs(np.array([[0, 1, 1]]), chain, 3))
    assert not np.array_equal(forth, back) and not np.array_equal(forth, other)


def test_numbers_are_about_as_wide_as_a_uniform_one_and_finite_without_nodes():
    sketch = graph_sketch(random_graphs(2000))
    assert sketch.dtype == np.float32 and sketch.shape == (2000, 4 + SIGNS)
    assert 0.1 < sketch.std(axis=0).min() <= sketch.std(axis=0).max() < 0.4
    assert np.isfinite(graph_sketch(Graphs(np.full((1, 3), -1), np.zeros((1, 3, 3)), 2))).all()


def test_it_never_changes():
    """What is learned from one version must hold for the next."""
    found = graph_sketch(Graphs(np.array([[0, 1]]), np.array([[[0, 1], [0, 0]]]), 2))
    assert np.sqrt(96) * (found[0, 2:] - 0.5) == pytest.approx(
        [-2, -2, -2, 2, 0, 0, -4, 0, 0, 2, 2, 2, 0, 0, 0, 0], abs=1e-5
    )
