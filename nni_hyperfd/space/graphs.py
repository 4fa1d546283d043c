"""Architectures as graphs of operations, in plain arrays: importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Graphs:
    """n networks of at most `nodes` operations each.

    Attributes:
        ops: int (n, nodes), each node's operation, 0 to num_ops - 1, or -1 for no node (padding).
        adjacency: (n, nodes, nodes), not 0 where the row's output is an input of the column's operation.
        num_ops: number of operations in the search space.
        stages: int (n, nodes), each node's stage, 0 to num_stages - 1, or None where the space has no stages.
        num_stages: number of stages in the search space, 0 without stages.

    Raises:
        ValueError: the shapes do not fit together, or an operation or a stage is outside its range.
    """

    ops: NDArray[np.integer]
    adjacency: NDArray[np.generic]
    num_ops: int
    stages: NDArray[np.integer] | None = None
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

    def __getitem__(self, indices: Sequence[int] | NDArray[np.integer] | slice) -> Graphs:
        stages = None if self.stages is None else self.stages[indices]
        return Graphs(self.ops[indices], self.adjacency[indices], self.num_ops, stages, self.num_stages)

    @classmethod
    def chains(cls, ops: NDArray[np.integer], num_ops: int, stages: NDArray[np.integer], num_stages: int) -> Graphs:
        """Make the graphs of networks whose active blocks form a chain, such as ProxylessNAS'.

        Args:
            ops: int (n, nodes), -1 for a block that is left out.
            num_ops: number of operations in the search space.
            stages: int (n, nodes), each block's stage.
            num_stages: number of stages in the search space.
        """
        n, nodes = ops.shape
        adjacency = np.zeros((n, nodes, nodes), dtype=bool)
        for network, row in enumerate(ops):
            active = np.flatnonzero(row >= 0)
            adjacency[network, active[:-1], active[1:]] = True
        return cls(ops, adjacency, num_ops, stages, num_stages)
