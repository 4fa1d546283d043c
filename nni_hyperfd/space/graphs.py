"""Configurations that are networks, as graphs of operations. Plain arrays: importing this does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Graphs:
    """n networks of at most `nodes` operations. Raises ValueError for what does not fit together.

    ops: int (n, nodes), each node's operation, 0 to num_ops - 1, or -1 for no node (padding).
    adjacency: (n, nodes, nodes), not 0 where the row's output enters the column's operation.
    stages: int (n, nodes), each node's stage, 0 to num_stages - 1; without stages num_stages is 0.
    """

    ops: np.ndarray
    adjacency: np.ndarray
    num_ops: int
    stages: np.ndarray | None = None
    num_stages: int = 0

    def __post_init__(self) -> None:
        if self.ops.ndim != 2 or self.adjacency.shape != (*self.ops.shape, self.ops.shape[1]):
            raise ValueError(
                "Graphs need operations (n, nodes) and adjacency (n, nodes, nodes), "
                f"got {self.ops.shape} and {self.adjacency.shape}."
            )
        if self.ops.size and not -1 <= self.ops.min() <= self.ops.max() < self.num_ops:
            raise ValueError(f"A graph's operations must lie between -1 and {self.num_ops - 1}.")
        if (self.stages is None) != (self.num_stages == 0):
            raise ValueError("Graphs need the stages of their nodes and their number, or neither.")
        if self.stages is not None:
            if self.stages.shape != self.ops.shape:
                raise ValueError(f"Stages must have the shape of the operations, {self.ops.shape}.")
            present = self.stages[self.ops >= 0]
            if present.size and not 0 <= present.min() <= present.max() < self.num_stages:
                raise ValueError(f"A graph's stages must lie between 0 and {self.num_stages - 1}.")

    def __len__(self) -> int:
        return len(self.ops)

    def __getitem__(self, indices: Sequence[int] | np.ndarray | slice) -> Graphs:
        stages = None if self.stages is None else self.stages[indices]
        return Graphs(self.ops[indices], self.adjacency[indices], self.num_ops, stages, self.num_stages)

    @classmethod
    def chains(cls, ops: np.ndarray, num_ops: int, stages: np.ndarray, num_stages: int) -> Graphs:
        """Networks whose active blocks follow one upon the other, such as ProxylessNAS'.

        ops: int (n, nodes), -1 for a block that is left out; stages: int (n, nodes).
        """
        n, nodes = ops.shape
        adjacency = np.zeros((n, nodes, nodes), dtype=bool)
        for network, row in enumerate(ops):
            active = np.flatnonzero(row >= 0)
            adjacency[network, active[:-1], active[1:]] = True
        return cls(ops, adjacency, num_ops, stages, num_stages)
