"""HyperFD's better ranker: a learned belief over the data set's vector, updated after every result.

The score of a configuration keeps the paper's form, an inner product of its features and the data set's vector; the
vector is uncertain (`nni_hyperfd.belief.belief`), the features are those of a learned kernel (`belief.kernel`), and the
pick is the candidate with the highest expected improvement (`belief.search`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.belief.evidence import PastTask
from nni_hyperfd.belief.model import BeliefModel
from nni_hyperfd.belief.search import Search
from nni_hyperfd.method.drawing import tasks_to_believe
from nni_hyperfd.recommenders.base import MeasuredDataset, Recommender, Task, finite_results
from nni_hyperfd.space import EncodedConfigurations


class HyperFD(Recommender):
    """The default recommender. One set of constants for hyper-parameters and architectures.

    Search spaces are told apart by the width of their encoded configurations. Learning looks at a limited number of
    past tasks (`method.drawing.tasks_to_believe`), so its cost does not grow.

    Args:
        seed: of everything random.
        model: what has been learned elsewhere, of the space that has its width; for the platform, which makes a
            recommender for each pick.

    Attributes:
        search: the belief over the candidates of the task at hand.
    """

    task: Task
    candidates: EncodedConfigurations
    search: Search

    def __init__(self, seed: int = 0, model: BeliefModel | None = None) -> None:
        self.seed = seed
        self._ties_rng = np.random.default_rng(seed)
        self._past: dict[int, list[PastTask]] = {}
        self._models: dict[int, tuple[int, BeliefModel]] = {} if model is None else {model.width: (0, model)}
        """By width: how many past tasks there were, and what they taught."""

    def know(self, data_sets: Sequence[MeasuredDataset]) -> None:
        """Keep the platform's own data sets, whose results represent the space."""
        for data_set in data_sets:
            self._keep(data_set.task, data_set.candidates, data_set.performance, sampled=True)

    def start_task(self, task: Task, candidates: EncodedConfigurations) -> None:
        """Begin with the next data set, and learn from the past ones if there is more to learn from."""
        self.task, self.candidates = task, candidates
        self.search = self._model(candidates.vectors).search(candidates.vectors, task.meta_feature)
        self._asked: list[int] = []
        self._pending: list[int] = []
        # Equal scores, as of equal candidates, are ordered at random.
        self._ties = self._ties_rng.permutation(len(candidates))

    def ask(self, n: int = 1) -> list[int]:
        """The candidates that are best to try next, given all results so far."""
        n = max(0, min(n, self.task.budget - len(self._asked), len(self.candidates) - len(self._asked)))
        for _ in range(n):
            scores = self.search.scores(self._pending)
            scores[self._asked] = -np.inf
            best = np.flatnonzero(scores == scores.max())
            self.take(int(best[self._ties[best].argmin()]))
        return self._asked[len(self._asked) - n :]

    def take(self, index: int) -> None:
        """Count a candidate as asked for, without asking: its trial was decided on before."""
        self._asked.append(index)
        self._pending.append(index)

    def tell(self, index: int, performance: float) -> None:
        """Update the belief by what a candidate brought."""
        if index not in self._pending:
            raise ValueError(f"Candidate {index} is not waiting for a result; those that are: {self._pending}.")
        self._pending.remove(index)
        if math.isfinite(performance):
            self.search.observe(index, float(performance))

    def end_task(self, revealed: Mapping[int, float]) -> None:
        """Keep what the task has revealed."""
        known, _ = finite_results(revealed, len(self.candidates))
        # In the order in which the platform gets them: a sum's rounding depends on it.
        asked = [index for index in self._asked if index in known]
        indices = [*asked, *(index for index in known.tolist() if index not in asked)]
        if indices:
            performance = np.array([float(revealed[index]) for index in indices])
            known_mostly = 2 * len(indices) >= len(self.candidates)
            self._keep(self.task, self.candidates[indices], performance, sampled=known_mostly)

    def past(self, width: int) -> Sequence[PastTask]:
        """The past tasks of a space in order of arrival, with meta-features that the current one's compares to."""
        return self._past.get(width, [])

    def _keep(
        self, task: Task, configurations: EncodedConfigurations, performance: NDArray[np.float64], sampled: bool
    ) -> None:
        """Keep a task's results, unless they are all the same: then there is nothing to rank."""
        if len(set(performance.tolist())) > 1:
            past = PastTask(configurations.vectors, performance, task.meta_feature, sampled)
            self._past.setdefault(configurations.width, []).append(past)

    def _model(self, candidates: NDArray[np.float32]) -> BeliefModel:
        """What the past tasks of a space have taught, some of whose configurations are the candidates (n, d)."""
        width = candidates.shape[1]
        past = self.past(width)
        count, model = self._models.get(width, (-1, None))
        if model is None or count != len(past):
            whole = [place for place, one in enumerate(past) if one.whole]
            picked = [place for place, one in enumerate(past) if not one.whole]
            drawn = [past[place] for place in tasks_to_believe(whole, picked, self.seed)]
            model = BeliefModel.learned(drawn, candidates, self.seed, before=model)
            self._models[width] = len(past), model
        return model
