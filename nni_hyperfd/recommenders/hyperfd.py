"""HyperFD's better ranker: a learned belief over the data set's vector, updated after every result.

The score of a configuration keeps the paper's form, an inner product of its features and the data set's vector; the
vector is uncertain (`nni_hyperfd.belief.belief`), the features are those of a learned kernel (`ranker.kernel`), and
the pick is the candidate with the highest expected improvement (`ranker.search`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from nni_hyperfd.belief.model import BeliefModel, PastTask
from nni_hyperfd.method.settings import MOST_TASKS
from nni_hyperfd.recommenders.base import Recommender, Task, finite_results
from nni_hyperfd.space.encoded import EncodedConfigurations


class HyperFD(Recommender):
    """The default recommender. One set of constants for hyper-parameters and architectures.

    Search spaces are told apart by the width of their encoded configurations. Learning looks at up to 32 past tasks,
    the newest and others drawn at random, so its cost does not grow.

    model: what has been learned elsewhere, of the space that has its width. `search` is the belief over the candidates
    of the task at hand.
    """

    def __init__(self, seed: int = 0, model: BeliefModel | None = None) -> None:
        self.rng = np.random.default_rng(seed)
        self._past: dict[int, list[PastTask]] = {}
        self._models: dict[int, BeliefModel] = {} if model is None else {model.width: model}

    def start_task(self, task: Task, candidates: EncodedConfigurations) -> None:
        self.task, self.candidates = task, candidates
        width = candidates.vectors.shape[1]
        if width not in self._models:
            self._models[width] = BeliefModel.learned([], width, self.rng)
        self.search = self._models[width].search(candidates.vectors, task.meta_feature)
        self._asked: list[int] = []
        self._pending: list[int] = []
        # Equal scores, as of equal candidates, are ordered at random.
        self._ties = self.rng.permutation(len(candidates))

    def ask(self, n: int = 1) -> list[int]:
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
        if index not in self._pending:
            raise ValueError(f"Candidate {index} is not waiting for a result; those that are: {self._pending}.")
        self._pending.remove(index)
        if math.isfinite(performance):
            self.search.observe(index, float(performance))

    def end_task(self, revealed: Mapping[int, float]) -> None:
        indices, performance = finite_results(revealed, len(self.candidates))
        # Where all results are the same there is nothing to rank.
        if len(set(performance)) > 1:
            inputs = self.candidates.vectors[indices]
            past = self._past.setdefault(inputs.shape[1], [])
            past.append(PastTask(inputs, performance, self.task.meta_feature))
            members = sorted([*self.rng.permutation(len(past) - 1)[: MOST_TASKS - 1].tolist(), len(past) - 1])
            self._models[inputs.shape[1]] = BeliefModel.learned([past[t] for t in members], inputs.shape[1], self.rng)
