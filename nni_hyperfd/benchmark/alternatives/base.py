"""A library's search over a space as a recommender that picks among a task's candidates.

What a library proposes is a point of the space. The candidate that is tried is the nearest one that has not been asked
for yet (Euclidean distance of encoded vectors, ties at random), and the library is told of that candidate where it can
be.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.recommenders import EncodedConfigurations, ScoringRecommender, Task

Point = dict[str, float | str]
"""A value for each number and each category of a space, by name."""


@dataclass(frozen=True)
class TableSpace:
    """The space that libraries search: the numbers and categories of a table's encoded configurations.

    Numbers keep the table's encoding, logarithms taken already: a library sees [0, 1], or a wider range where
    candidates lie outside. A number that some configurations do not have (inactive, -0.5) ranges from there, so every
    proposal below -0.25 is nearer to inactive; an empty category is one like any other.

    Attributes:
        parts: (name, first entry, width) of each number and category in the encoded vectors, in order.
        numbers: (low, high) of each number.
        categories: values of each category.
    """

    parts: tuple[tuple[str, int, int], ...]
    numbers: dict[str, tuple[float, float]]
    categories: dict[str, list[str]]

    @classmethod
    def covering(cls, vectors: NDArray[np.float32], columns: Sequence[int] = ()) -> TableSpace:
        """The smallest space around encoded configurations.

        Args:
            vectors: (n, d).
            columns: number of entries of each parameter (`tables.Table.columns`). If they do not add up to d, they are
                those of another space, and all entries are numbers.
        """
        width = vectors.shape[1]
        columns = columns if sum(columns) == width else (1,) * width
        starts = np.cumsum([0, *columns])[:-1].tolist()
        parts = tuple((f"x{i}", start, size) for i, (start, size) in enumerate(zip(starts, columns, strict=True)))
        low, high = np.minimum(vectors.min(axis=0), 0).tolist(), np.maximum(vectors.max(axis=0), 1).tolist()
        numbers = {name: (low[start], high[start]) for name, start, size in parts if size == 1}
        categories = {name: [f"v{i}" for i in range(size)] for name, _, size in parts if size > 1}
        return cls(parts, numbers, categories)

    def point(self, vector: NDArray[np.float32]) -> Point:
        """The point of an encoded configuration (d,)."""
        return {
            name: f"v{vector[start : start + size].argmax()}" if name in self.categories else float(vector[start])
            for name, start, size in self.parts
        }

    def vector(self, point: Mapping[str, float | str]) -> NDArray[np.float64]:
        """The encoded vector (d,) of a point; numbers are taken as the library proposes them, without rounding."""
        result = np.zeros(sum(size for _, _, size in self.parts))
        for name, start, _ in self.parts:
            value = point[name]
            if name in self.categories:
                result[start + self.categories[name].index(str(value))] = 1
            else:
                result[start] = value
        return result


@dataclass(frozen=True, eq=False)
class PastResults:
    """What one past task revealed.

    Attributes:
        vectors: (k, d), encoded configurations.
        performance: (k,), their results.
        meta_feature: that of the task, or None.
    """

    vectors: NDArray[np.float32]
    performance: NDArray[np.float64]
    meta_feature: NDArray[np.float32] | None


class Alternative(ScoringRecommender):
    """A library's search that starts anew with every task.

    Subclasses write `begin`, `propose` and `observe`; they find the task at hand in `space`, `task` and `candidates`.
    Results are passed on in the order of asking, whatever the order they come in.

    Args:
        seed: of all random numbers.
        columns: number of entries of each parameter in encoded configurations (`tables.Table.columns`).

    Attributes:
        search: the library's object for the task at hand, of another type for each library; None while there is none.
    """

    search: Any

    def __init__(self, seed: int = 0, columns: Sequence[int] = ()) -> None:
        super().__init__(seed)
        self.columns = tuple(columns)
        self.search = None
        self._begun = False
        self._passed_on: set[int] = set()

    @abstractmethod
    def begin(self, seed: int) -> object:
        """Start a new search by the library; None where it cannot search, and candidates are drawn at random."""

    @abstractmethod
    def propose(self) -> Point | None:
        """The point to try next; None where the library has none, and a candidate is drawn at random."""

    def run(self, index: int) -> None:
        """Take note of the candidate that is tried for the last proposal."""

    def observe(self, index: int, performance: float) -> None:
        """Tell the library a candidate's result, which is NaN for a failed trial."""

    def start_task(self, task: Task, candidates: EncodedConfigurations) -> None:
        """Begin with the next data set."""
        super().start_task(task, candidates)
        self._drop()
        self.vectors = np.unique(candidates.vectors, axis=0)
        self.space = TableSpace.covering(np.concatenate([self.vectors, *self.past_vectors()]), self.columns)

    def past_vectors(self) -> list[NDArray[np.float32]]:
        """Encoded configurations that the space has to cover beside the candidates."""
        return []

    def ask(self, n: int = 1) -> list[int]:
        """The candidates that are nearest to the next `n` proposals."""
        n = max(0, min(n, self.task.budget - len(self.asked), len(self.candidates) - len(self.asked)))
        picks: list[int] = []
        for _ in range(n):
            picks += super().ask(1)
            if self.search is not None:
                self.run(picks[-1])
        return picks

    def scores(self) -> NDArray[np.float64]:
        """Negative distances (n,) of the candidates to the next proposal."""
        if not self._begun:
            self.search, self._begun = self.begin(int(self.rng.integers(2**31))), True
        if self.search is not None:
            for index in [index for index in self.asked if index in self._told and index not in self._passed_on]:
                self._passed_on.add(index)
                self.observe(index, self.results.get(index, np.nan))
        proposal = None if self.search is None else self.propose()
        if proposal is None:
            return np.zeros(len(self.candidates))
        scores: NDArray[np.float64] = -np.linalg.norm(self.candidates.vectors - self.space.vector(proposal), axis=1)
        return scores

    def end_task(self, revealed: Mapping[int, float]) -> None:
        """End the search, and learn."""
        self._drop()
        super().end_task(revealed)

    def point(self, index: int) -> Point:
        """The point of a candidate."""
        return self.space.point(self.candidates.vectors[index])

    def _drop(self) -> None:
        """End the search."""
        self.search, self._begun, self._passed_on = None, False, set()


class TransferAlternative(Alternative):
    """A library's search that is given the past tasks of the same search space.

    Tasks with fewer than two different results say nothing and are not kept.

    Attributes:
        past: all past tasks.
        usable: those whose configurations have the width of the task at hand.
    """

    def __init__(self, seed: int = 0, columns: Sequence[int] = ()) -> None:
        super().__init__(seed, columns)
        self.past: list[PastResults] = []

    def start_task(self, task: Task, candidates: EncodedConfigurations) -> None:
        """Begin with the next data set."""
        self.usable = [past for past in self.past if past.vectors.shape[1] == candidates.width]
        super().start_task(task, candidates)

    def past_vectors(self) -> list[NDArray[np.float32]]:
        """The configurations of the past tasks."""
        return [past.vectors for past in self.usable]

    def learn(self, indices: NDArray[np.int64], performance: NDArray[np.float64]) -> None:
        """Keep the task's results."""
        if len(np.unique(performance)) > 1:
            self.past.append(PastResults(self.candidates.vectors[indices], performance, self.task.meta_feature))
