"""FLAML's zero-shot AutoML (`flaml.default`): a portfolio in the order of its performance on the nearest past task."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # of flaml.automl, which is not needed
    from flaml.default.portfolio import build_portfolio, config_predictor_tuple
    from flaml.default.suggest import suggest_config
    from flaml.version import __version__

from nni_hyperfd.benchmark.alternatives.base import Point, TransferAlternative
from nni_hyperfd.recommenders import EncodedConfigurations, Task
from nni_hyperfd.recommenders.simple import RankedTask

logging.getLogger("flaml").setLevel(logging.WARNING)


class FLAMLPortfolio(TransferAlternative):
    """`build_portfolio` (greedy) on the past tasks' regrets, and `suggest_config` by their meta-features.

    FLAML needs every configuration's regret on every past task; these are 1 - the relative rank that `mean_rank`
    interpolates for the task's candidates. After the portfolio the other candidates follow, in the order of their
    performance on the same nearest task. Unknown meta-features are 0. It does not look at the results of the task at
    hand.
    """

    def begin(self, seed: int) -> list[int] | None:
        """All candidates in their order; None without past tasks."""
        described = self.meta_features()
        if not self.usable:
            return None
        regret = pd.DataFrame({f"t{i}": 1 - self._ranks(i) for i in range(len(self.usable))})
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                portfolio = build_portfolio(described.iloc[:-1], regret, "greedy")
            except (IndexError, ValueError):  # raised when it has taken all candidates, if there are very few
                portfolio = list(regret.index)
            rest = [place for place in regret.index if place not in portfolio]
            return [
                place for group in (portfolio, rest) if group for place in self._suggested(group, regret, described)
            ]

    def propose(self) -> Point | None:
        """The next candidate."""
        return self.point(self.search.pop(0)) if self.search else None

    def meta_features(self) -> pd.DataFrame:
        """A row per past task and one for this task; a past meta-feature of another length counts as unknown."""
        own = self.task.meta_feature
        width = 0 if own is None else len(own)
        rows = [*(past.meta_feature for past in self.usable), own]
        unknown = np.zeros(max(width, 1), dtype=np.float32)
        rows = [row if row is not None and len(row) == width and width else unknown for row in rows]
        names = [*(f"t{i}" for i in range(len(self.usable))), "own"]
        return pd.DataFrame(np.nan_to_num(np.array(rows, dtype=float), posinf=0.0, neginf=0.0), index=names)

    def _ranks(self, place: int) -> NDArray[np.float64]:
        """Relative ranks (n,) of the candidates on a past task."""
        past = self.usable[place]
        task, candidates = Task(meta_feature=past.meta_feature), EncodedConfigurations(past.vectors)
        return RankedTask(task, candidates, np.arange(len(past.vectors)), past.performance).interpolate(self.candidates)

    def _suggested(self, group: Sequence[int], regret: pd.DataFrame, described: pd.DataFrame) -> list[int]:
        """The candidates of a group in FLAML's order."""
        features, preferences, scaling = config_predictor_tuple(regret.columns, group, described.iloc[:-1], regret)
        predictor = {
            "version": __version__,
            "meta_feature_names": list(described.columns),
            "portfolio": [{"place": place} for place in group],
            "preprocessing": scaling,
            "neighbors": [
                {"features": features.loc[task].tolist(), "choice": preferences[task].tolist()}
                for task in regret.columns
            ],
        }
        own = described.iloc[-1].tolist()
        configs = suggest_config("regression", None, None, predictor, meta_feature_fn=lambda *_, **__: own)
        return [cast(int, config["place"]) for config in configs]
