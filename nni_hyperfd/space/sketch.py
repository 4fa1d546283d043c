"""A graph as a few numbers that are alike for graphs with the same parts, in plain arrays and without learning.

Weisfeiler and Lehman's refinement names every node by its operation, then by its name and its neighbours' names, and so
on. A kernel on the counts of names (Shervashidze et al., 2011) needs as many numbers as there are names. Here
operations are counted, and each longer name adds a random sign to each of 16 numbers, whose distances approximate those
of the counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.space.graphs import Graphs

SIGNS = 16
_ROUNDS = 2
"""Longer names of a node: what is within one and two edges of it."""

_Names = NDArray[np.uint64]


def graph_sketch(graphs: Graphs) -> NDArray[np.float32]:
    """Sketch graphs (eq. B18).

    Args:
        graphs: n of them. The order of their nodes does not matter, nor do their stages.

    Returns:
        float32 (n, num_ops + 16), about as wide as [0, 1]; the meaning of a number never changes in a space.
    """
    return np.hstack([_counted(graphs), _signed(graphs)]).astype(np.float32)


def _counted(graphs: Graphs) -> NDArray[np.float64]:
    """Numbers (n, num_ops) of each operation; their variance is 1 / 12 for operations that are drawn at random."""
    nodes = graphs.ops.shape[1]
    counts = (graphs.ops[:, :, None] == np.arange(graphs.num_ops)).sum(axis=1)
    result: NDArray[np.float64] = 0.5 + (counts - nodes / graphs.num_ops) / np.sqrt(1.5 * nodes)
    return result


def _signed(graphs: Graphs) -> NDArray[np.float64]:
    """Sums (n, 16) of the signs of all longer names; their variance is half of that of independent signs."""
    present = graphs.ops >= 0
    into, out_of = graphs.adjacency.transpose(0, 2, 1) != 0, graphs.adjacency != 0
    names = _mixed(graphs.ops.astype(np.uint64), 1) * present
    signs: NDArray[np.float64] = np.zeros((len(graphs), SIGNS))
    for _ in range(_ROUNDS):
        names = _mixed(names + _mixed(_summed(into, names), 2) + _mixed(_summed(out_of, names), 3), 4) * present
        bits = (names[:, :, None] >> np.arange(SIGNS, dtype=np.uint64)) & np.uint64(1)
        signs += ((2.0 * bits - 1) * present[:, :, None]).sum(axis=1)
    result: NDArray[np.float64] = 0.5 + signs / np.sqrt(24 * _ROUNDS * graphs.ops.shape[1])
    return result


def _summed(edges: NDArray[np.bool_], names: _Names) -> _Names:
    """Sum (n, nodes) of the neighbours' names, in which their order does not matter."""
    sums: _Names = (edges * names[:, None, :]).sum(axis=2, dtype=np.uint64)
    return sums


def _mixed(names: _Names, salt: int) -> _Names:
    """Names (n, nodes) whose bits look independent of the given ones: the finaliser of SplitMix64."""
    x = names + np.uint64(salt * 0x9E3779B97F4A7C15 % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: _Names = x ^ (x >> np.uint64(31))
    return mixed
