"""Syne Tune's transfer schedulers. They learn from past tasks alone: none looks at the results of the task at hand.

Its zero-shot and quantile-based methods rank points drawn at random, 10000 and 100000 of them; here they rank the
task's candidates, which is what those points would be mapped to.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator

import numpy as np
import pandas as pd
import xgboost
from syne_tune.blackbox_repository.blackbox_surrogate import BlackboxSurrogate
from syne_tune.config_space import choice, uniform
from syne_tune.optimizer.baselines import RandomSearch
from syne_tune.optimizer.schedulers.searchers.single_objective_searcher import SingleObjectiveBaseSearcher
from syne_tune.optimizer.schedulers.transfer_learning.bounding_box import BoundingBox
from syne_tune.optimizer.schedulers.transfer_learning.quantile_based.quantile_based_searcher import (
    QuantileBasedSurrogateSearcher,
    fit_model,
)
from syne_tune.optimizer.schedulers.transfer_learning.transfer_learning_task_evaluation import (
    TransferLearningTaskEvaluations,
)
from syne_tune.optimizer.schedulers.transfer_learning.zero_shot import ZeroShotTransfer

from nni_hyperfd.benchmark.alternatives.base import Point, TransferAlternative

_METRIC = "performance"

logging.getLogger("syne_tune").setLevel(logging.ERROR)


class _Syne(TransferAlternative):
    def domains(self) -> dict:
        numbers = {name: uniform(*bounds) for name, bounds in self.space.numbers.items()}
        return numbers | {name: choice(values) for name, values in self.space.categories.items()}

    def evaluations(self) -> dict[str, TransferLearningTaskEvaluations]:
        """Of the past tasks, as costs."""
        return {str(place): self.evaluated(past.vectors, -past.performance) for place, past in enumerate(self.usable)}

    def evaluated(self, vectors: np.ndarray, cost: np.ndarray) -> TransferLearningTaskEvaluations:
        return TransferLearningTaskEvaluations(
            self.domains(), self.frame(vectors), [_METRIC], cost[:, None, None, None]
        )

    def frame(self, vectors: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame([self.space.point(vector) for vector in vectors])


@contextlib.contextmanager
def _drawing_from(own: np.random.RandomState) -> Iterator[None]:
    """Within the block, numpy's global generator goes on where `own` stands."""
    outer = np.random.get_state()
    np.random.set_state(own.get_state())
    try:
        yield
    finally:
        own.set_state(np.random.get_state())
        np.random.set_state(outer)


class SyneZeroShot(_Syne):
    """Zero-shot: the configurations with the least mean of the best ranks on past tasks.

    As the library does for tasks that did not try the same configurations, gradient-boosted trees fill in what past
    tasks say of this task's. Its `suggest` is inherited and draws at random in 0.16; `get_config` is the method.
    """

    def begin(self, seed: int) -> ZeroShotTransfer | None:
        if not self.usable:
            return None
        x = self.frame(self.vectors)
        filled = {}
        for place, past in enumerate(self.usable):
            model = xgboost.XGBRegressor(n_jobs=1)
            pipeline = BlackboxSurrogate.make_model_pipeline(self.domains(), {}, model)
            pipeline.fit(self.frame(past.vectors), -past.performance)
            filled[str(place)] = self.evaluated(self.vectors, pipeline.predict(x))
        return ZeroShotTransfer(
            self.domains(), _METRIC, filled, sort_transfer_learning_evaluations=False, random_seed=seed
        )

    def propose(self) -> Point | None:
        return self.search.get_config()


class SyneBoundingBox(_Syne):
    """Bounding box: random search within the box of the past tasks' best configurations, as in its documentation.

    Its random search does not look at the seed it is given and draws from numpy's global generator, which is set here.
    """

    def begin(self, seed: int) -> BoundingBox | None:
        if not self.usable:
            return None
        self._random = np.random.RandomState(seed)
        with contextlib.redirect_stdout(io.StringIO()), _drawing_from(self._random):
            return BoundingBox(
                lambda space, metric, minimize, seed: RandomSearch(space, [metric], minimize, random_seed=seed),
                self.domains(),
                _METRIC,
                self.evaluations(),
                random_seed=seed,
            )

    def propose(self) -> Point | None:
        with _drawing_from(self._random):
            suggestion = self.search.suggest()
        return None if suggestion is None else suggestion.config


class _AmongCandidates(QuantileBasedSurrogateSearcher):
    """The library's searcher with the points to rank given instead of drawn."""

    def __init__(self, domains: dict, evaluations: dict, points: pd.DataFrame, seed: int) -> None:
        SingleObjectiveBaseSearcher.__init__(self, domains, points_to_evaluate=[], random_seed=seed)
        self.random_state = np.random.RandomState(seed)
        model = xgboost.XGBRegressor(n_jobs=1)
        self.model_pipeline, _, error = fit_model(domains, evaluations, "gaussian", 100000, self.random_state, model)
        self.X_candidates = points
        self.mu_pred = self.model_pipeline.predict(points).reshape(-1, 1)
        self.sigma_pred = np.full_like(self.mu_pred, error)


class SyneQuantile(_Syne):
    """Quantile-based: Thompson sampling of gradient-boosted trees on the past tasks' Gaussian copulas."""

    def begin(self, seed: int) -> QuantileBasedSurrogateSearcher | None:
        if not self.usable:
            return None
        with contextlib.redirect_stdout(io.StringIO()):
            return _AmongCandidates(self.domains(), self.evaluations(), self.frame(self.vectors), seed)

    def propose(self) -> Point | None:
        return self.search.suggest()
