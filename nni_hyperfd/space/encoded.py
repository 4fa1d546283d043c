"""Configurations as encoders and recommenders take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.space.graphs import Graphs


@dataclass(frozen=True, eq=False)
class EncodedConfigurations:
    """One or more configurations of a search space in numbers.

    Attributes:
        vectors: float32 (n >= 1, d), finite, each column about as wide as [0, 1]; the meaning of a column never
            changes. All parameters, those of an architecture included.
        graphs: the architectures of the same configurations, or None where the space has no architectures.
        beside: the columns of `vectors` that `graphs` does not cover: the hyper-parameters of a joint space. Empty
            without graphs.

    Raises:
        ValueError: `vectors` has no row, no column or a number that is not finite, or the parts do not fit together.
    """

    vectors: NDArray[np.float32]
    graphs: Graphs | None = None
    beside: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) == 0:
            raise ValueError(
                f"Encoded configurations need one row of numbers each and at least one row, got {self.vectors.shape}."
            )
        if not self.width:
            raise ValueError("Encoded configurations need at least one number each.")
        if not np.isfinite(self.vectors).all():
            raise ValueError("Encoded configurations must be finite: encode what is missing before.")
        if self.graphs is not None and len(self.graphs) != len(self.vectors):
            raise ValueError(f"There are {len(self.vectors)} configurations but {len(self.graphs)} graphs.")
        if self.beside and (self.graphs is None or not 0 <= min(self.beside) <= max(self.beside) < self.width):
            raise ValueError(f"Columns {self.beside} beside the graphs do not exist.")

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, indices: Sequence[int] | NDArray[np.integer]) -> EncodedConfigurations:
        graphs = None if self.graphs is None else self.graphs[indices]
        return EncodedConfigurations(self.vectors[indices], graphs, self.beside)

    @property
    def width(self) -> int:
        """Numbers in a configuration's vector."""
        return int(self.vectors.shape[1])
