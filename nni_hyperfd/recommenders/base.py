"""What a recommender is: the interface between a search for one data set after another and whoever proposes.

A recommender lives through many tasks. For each one it is told the candidates (`start_task`), asked for picks (`ask`),
told what they brought (`tell`), and at the end given all results that have become known (`end_task`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.space import EncodedConfigurations


@dataclass(frozen=True, eq=False)
class Task:
    """What is known of a data set before the first result.

    Attributes:
        budget: picks that may be asked for, all in all, at least 0.
        meta_feature: float32 (m,), or None; an entry that is not finite is unknown.
        images: float32 (N >= 1, 3, 3, D), image features as `method.meta_feature` takes them, for recommenders that
            learn from images; None without.
        counts: float32 (2,), numbers of images and boxes; None without.

    Raises:
        ValueError: a part does not describe a data set.
    """

    budget: int = 4
    meta_feature: NDArray[np.float32] | None = None
    images: NDArray[np.float32] | None = None
    counts: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.budget < 0:
            raise ValueError(f"A task's budget must be 0 or greater, not {self.budget}.")
        if self.meta_feature is not None and self.meta_feature.ndim != 1:
            raise ValueError(f"A task's meta-feature must be one row of numbers, got shape {self.meta_feature.shape}.")
        if self.images is not None:
            if self.images.ndim != 4 or self.images.shape[1:3] != (3, 3) or not self.images.size:
                raise ValueError(f"A task's image features must have shape (N, 3, 3, D), got {self.images.shape}.")
            missing = np.isnan(self.images)
            if np.isinf(self.images).any() or (missing.any(axis=-1) != missing.all(axis=-1)).any():
                raise ValueError(
                    "A task's image features must be finite, or NaN throughout for an anchor group without anchors."
                )
        counts = self.counts
        if counts is not None and (counts.shape != (2,) or not (np.isfinite(counts) & (counts >= 0)).all()):
            raise ValueError(f"A task's counts must be numbers of images and boxes, 0 or greater, got {counts}.")


@dataclass(frozen=True, eq=False)
class MeasuredDataset:
    """One of the platform's own data sets (D_off) with measured results.

    Attributes:
        task: what is known of it.
        candidates: the n measured configurations.
        performance: float64 (n,), their results, finite, higher is better.
    """

    task: Task
    candidates: EncodedConfigurations
    performance: NDArray[np.float64]


class Recommender(ABC):
    """The whole interface. Every random number follows the `seed` it was made with."""

    def know(self, data_sets: Sequence[MeasuredDataset]) -> None:
        """Learn from the platform's own data sets, before the first task.

        Unless a recommender says otherwise, they are tasks of which these results are revealed.
        """
        for data_set in data_sets:
            self.start_task(data_set.task, data_set.candidates)
            self.end_task(dict(enumerate(data_set.performance.tolist())))

    @abstractmethod
    def start_task(self, task: Task, candidates: EncodedConfigurations) -> None:
        """Begin with the next data set."""

    @abstractmethod
    def ask(self, n: int = 1) -> list[int]:
        """Propose what to try next.

        Args:
            n: how many candidates, at least 0.

        Returns:
            Indices of `n` different candidates, none of which was asked for before in this task; fewer, possibly none,
            when the candidates or the task's budget run out.
        """

    @abstractmethod
    def tell(self, index: int, performance: float) -> None:
        """Take in what a candidate brought.

        Args:
            index: of the candidate.
            performance: higher is better, NaN for a trial that failed.

        Raises:
            ValueError: the candidate is not waiting for its result: it was not asked for in this task, or told already.
        """

    @abstractmethod
    def end_task(self, revealed: Mapping[int, float]) -> None:
        """End the task and learn.

        Args:
            revealed: the performances that are known now by the candidates' indices, the own picks among them.

        Raises:
            ValueError: an index is none of the task's candidates.
        """


def finite_results(revealed: Mapping[int, float], candidates: int) -> tuple[NDArray[np.int_], NDArray[np.float64]]:
    """What a task has revealed, without performances that are not finite.

    Args:
        revealed: performances by the candidates' indices.
        candidates: how many candidates the task has.

    Returns:
        Indices in ascending order and their performances, (k,) each.

    Raises:
        ValueError: an index is none of the candidates.
    """
    if strange := [index for index in revealed if not 0 <= index < candidates]:
        raise ValueError(f"A result was revealed for candidate {strange[0]}; the task has 0 to {candidates - 1}.")
    known = {int(index): float(value) for index, value in revealed.items() if math.isfinite(value)}
    indices = np.array(sorted(known), dtype=int)
    return indices, np.array([known[index] for index in indices])


class ScoringRecommender(Recommender):
    """A recommender that tries the candidates in the order of their scores, ties at random.

    Subclasses write `scores` and, where they learn, `learn`.

    Args:
        seed: of everything random.

    Attributes:
        rng: for their random numbers.
        task: the task at hand.
        candidates: those of the task.
        asked: indices of the candidates that were asked for, in order.
        results: finite performances so far, by the candidates' indices.
    """

    task: Task
    candidates: EncodedConfigurations

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.asked: list[int] = []
        self._told: set[int] = set()
        self.results: dict[int, float] = {}

    @abstractmethod
    def scores(self) -> NDArray[np.float64]:
        """Scores (n,) of this task's candidates, given the results so far; higher is better, NaN counts as worst."""

    def learn(self, indices: NDArray[np.int_], performance: NDArray[np.float64]) -> None:
        """Take in what the task has revealed: indices into its candidates and their finite performances, both (k,)."""

    def start_task(self, task: Task, candidates: EncodedConfigurations) -> None:
        """Begin with the next data set."""
        self.task, self.candidates = task, candidates
        self.asked, self._told, self.results = [], set(), {}

    def ask(self, n: int = 1) -> list[int]:
        """The candidates with the highest scores that were not asked for before."""
        n = max(0, min(n, self.task.budget - len(self.asked)))
        scores = np.nan_to_num(self.scores(), nan=-np.inf)
        order = np.lexsort((self.rng.permutation(len(scores)), -scores))
        asked = set(self.asked)
        picks = [int(index) for index in order if int(index) not in asked][:n]
        self.asked += picks
        return picks

    def tell(self, index: int, performance: float) -> None:
        """Keep what a candidate brought in `results`."""
        if index in self._told or index not in self.asked:
            waiting = [asked for asked in self.asked if asked not in self._told]
            raise ValueError(f"Candidate {index} is not waiting for a result; those that are: {waiting}.")
        self._told.add(index)
        if math.isfinite(performance):
            self.results[index] = float(performance)

    def end_task(self, revealed: Mapping[int, float]) -> None:
        """Hand the finite results to `learn`."""
        indices, performance = finite_results(revealed, len(self.candidates))
        if len(indices):
            self.learn(indices, performance)
