"""Syne Tune's transfer schedulers, which learn from past tasks alone: none looks at the results of the task at hand.

Its zero-shot and quantile-based methods rank 10,000 and 100,000 points drawn at random; here they rank the task's
candidates, which is what these points would be mapped to.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
import pandas as pd
import xgboost
from numpy.typing import NDArray
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
    """What the schedulers have in common."""

    def domains(self) -> dict[str, Any]:
        """The space as Syne Tune's."""
        domains = {name: uniform(*bounds) for name, bounds in self.space.numbers.items()}
        return domains | {name: choice(values) for name, values in self.space.categories.items()}

    def evaluations(self) -> dict[str, TransferLearningTaskEvaluations]:
        """Results of the past tasks, as costs."""
        return {str(place): self.evaluated(past.vectors, -past.performance) for place, past in enumerate(self.usable)}

    def evaluated(self, vectors: NDArray[np.float32], cost: NDArray[np.float64]) -> TransferLearningTaskEvaluations:
        """Costs (k,) of encoded configurations (k, d) on one task."""
        return TransferLearningTaskEvaluations(
            self.domains(), self.frame(vectors), [_METRIC], cost[:, None, None, None]
        )

    def frame(self, vectors: NDArray[np.float32]) -> pd.DataFrame:
        """Encoded configurations (k, d) as points, a row each."""
        return pd.DataFrame([self.space.point(vector) for vector in vectors])


@contextlib.contextmanager
def _drawing_from(own: np.random.RandomState) -> Iterator[None]:
    """Within the block, numpy's global random generator continues from the state of `own`, which keeps its end."""
    outer = np.random.get_state()
    np.random.set_state(own.get_state())
    try:
        yield
    finally:
        own.set_state(np.random.get_state())
        np.random.set_state(outer)


class SyneZeroShot(_Syne):
    """Zero-shot: the configurations with the lowest mean of the best ranks on past tasks.

    As the library does for tasks that did not try the same configurations, gradient-boosted trees predict the results
    of this task's candidates on past tasks. In 0.16 its `suggest` is inherited and draws at random; `get_config` is the
    method.
    """

    def begin(self, seed: int) -> ZeroShotTransfer | None:
        """Fit the trees and make the scheduler; None without past tasks."""
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
        """The next configuration."""
        return cast(Point | None, self.search.get_config())


class SyneBoundingBox(_Syne):
    """Bounding box: random search within the box of the past tasks' best configurations, as in its documentation.

    Its random search ignores the seed that it is given and draws from numpy's global generator, which is set here.
    """

    def begin(self, seed: int) -> BoundingBox | None:
        """Make the scheduler; None without past tasks."""
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
        """A random point within the box."""
        with _drawing_from(self._random):
            suggestion = self.search.suggest()
        return None if suggestion is None else suggestion.config


class _AmongCandidates(QuantileBasedSurrogateSearcher):
    """The library's searcher, but the points to rank are given and not drawn."""

    def __init__(
        self,
        domains: Mapping[str, Any],
        evaluations: Mapping[str, TransferLearningTaskEvaluations],
        points: pd.DataFrame,
        seed: int,
    ) -> None:
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
        """Fit the trees and make the searcher; None without past tasks."""
        if not self.usable:
            return None
        with contextlib.redirect_stdout(io.StringIO()):
            return _AmongCandidates(self.domains(), self.evaluations(), self.frame(self.vectors), seed)

    def propose(self) -> Point | None:
        """The candidate of the lowest sample."""
        return cast(Point | None, self.search.suggest())
