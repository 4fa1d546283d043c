"""A library's search over a space as a recommender that picks among a task's candidates.

What a library proposes is a point of the space; the candidate tried is the nearest one that was not asked for yet
(Euclidean distance of encoded vectors, ties at random), and the library is told of that candidate where it can be.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nni_hyperfd.recommenders.base import ScoringRecommender, Task
from nni_hyperfd.space.encoded import EncodedConfigurations

Point = dict[str, "float | str"]


@dataclass(frozen=True)
class Space:
    """What libraries search: numbers and categories, named after their places.

    Numbers keep the table's encoding, logarithms taken already: a library sees [0, 1], or more where candidates lie
    outside. A number that some configurations do not have (inactive, -0.5) ranges from there, so every proposal below
    -0.25 lies nearer to inactive; an empty category is one like any other. numbers: name -> (low, high); categories:
    name -> values; both in `parts`: (name, first entry, width).
    """

    parts: tuple[tuple[str, int, int], ...]
    numbers: dict[str, tuple[float, float]]
    categories: dict[str, list[str]]

    @classmethod
    def covering(cls, vectors: np.ndarray, columns: Sequence[int] = ()) -> Space:
        """The space of (n, d) vectors; columns that do not add up to d are not theirs, and all entries are numbers."""
        width = vectors.shape[1]
        columns = columns if sum(columns) == width else (1,) * width
        starts = np.cumsum([0, *columns])[:-1].tolist()
        parts = tuple((f"x{i}", start, size) for i, (start, size) in enumerate(zip(starts, columns, strict=True)))
        low, high = np.minimum(vectors.min(axis=0), 0).tolist(), np.maximum(vectors.max(axis=0), 1).tolist()
        numbers = {name: (low[start], high[start]) for name, start, size in parts if size == 1}
        categories = {name: [f"v{i}" for i in range(size)] for name, _, size in parts if size > 1}
        return cls(parts, numbers, categories)

    def point(self, vector: np.ndarray) -> Point:
        return {
            name: f"v{vector[start : start + size].argmax()}" if name in self.categories else float(vector[start])
            for name, start, size in self.parts
        }

    def vector(self, point: Mapping[str, float | str]) -> np.ndarray:
        """Numbers that a library proposes are taken as they are, rounding errors and all."""
        result = np.zeros(sum(size for _, _, size in self.parts))
        for name, start, _ in self.parts:
            value = point[name]
            if name in self.categories:
                result[start + self.categories[name].index(value)] = 1
            else:
                result[start] = value
        return result


@dataclass(frozen=True, eq=False)
class PastResults:
    """What one past task revealed: vectors (k, d), performance (k,), and the task's meta-feature."""

    vectors: np.ndarray
    performance: np.ndarray
    meta_feature: np.ndarray | None


class Alternative(ScoringRecommender):
    """A search that starts anew with every task. columns: as `tables.Table` has them.

    Subclasses write `begin`, `propose` and `observe`; they find the task at hand in `space`, `task` and `candidates`.
    Results are passed on in the order of asking, whatever the order they came in.
    """

    def __init__(self, seed: int = 0, columns: Sequence[int] = ()) -> None:
        super().__init__(seed)
        self.columns = tuple(columns)
        self._drop()

    @abstractmethod
    def begin(self, seed: int) -> object:
        """A new search by the library, kept in `search` until the task ends."""

    @abstractmethod
    def propose(self) -> Point | None:
        """The point to try next; None where the library has none, and a candidate is drawn at random."""

    def run(self, index: int) -> None:
        """The candidate that is tried for the last proposal."""

    def observe(self, index: int, performance: float) -> None:
        """What a candidate brought, NaN if it failed."""

    def start_task(self, task: Task, candidates: EncodedConfigurations) -> None:
        super().start_task(task, candidates)
        self._drop()
        self.vectors = np.unique(candidates.vectors, axis=0)
        self.space = Space.covering(np.concatenate([self.vectors, *self.past_vectors()]), self.columns)

    def past_vectors(self) -> list[np.ndarray]:
        """What the space has to cover beside the candidates."""
        return []

    def ask(self, n: int = 1) -> list[int]:
        n = max(0, min(n, self.task.budget - len(self.asked), len(self.candidates) - len(self.asked)))
        picks = []
        for _ in range(n):
            picks += super().ask(1)
            if self.search is not None:
                self.run(picks[-1])
        return picks

    def scores(self) -> np.ndarray:
        if not self._begun:
            self.search, self._begun = self.begin(int(self.rng.integers(2**31))), True
        if self.search is not None:
            for index in [index for index in self.asked if index in self._told and index not in self._passed_on]:
                self._passed_on.add(index)
                self.observe(index, self.results.get(index, np.nan))
        proposal = None if self.search is None else self.propose()
        if proposal is None:
            return np.zeros(len(self.candidates))
        return -np.linalg.norm(self.candidates.vectors - self.space.vector(proposal), axis=1)

    def end_task(self, revealed: Mapping[int, float]) -> None:
        self._drop()
        super().end_task(revealed)

    def point(self, index: int) -> Point:
        return self.space.point(self.candidates.vectors[index])

    def _drop(self) -> None:
        self.search: object | None = None
        self._begun = False
        self._passed_on: set[int] = set()


class TransferAlternative(Alternative):
    """One that is given the past tasks of the same width; those with fewer than two different results say nothing."""

    def __init__(self, seed: int = 0, columns: Sequence[int] = ()) -> None:
        self.past: list[PastResults] = []
        super().__init__(seed, columns)

    def start_task(self, task: Task, candidates: EncodedConfigurations) -> None:
        width = candidates.vectors.shape[1]
        self.usable = [past for past in self.past if past.vectors.shape[1] == width]
        super().start_task(task, candidates)

    def past_vectors(self) -> list[np.ndarray]:
        return [past.vectors for past in self.usable]

    def learn(self, indices: np.ndarray, performance: np.ndarray) -> None:
        if len(np.unique(performance)) > 1:
            self.past.append(PastResults(self.candidates.vectors[indices], performance, self.task.meta_feature))
