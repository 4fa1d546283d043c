"""Recommenders propose the next configuration of a task.

The interface is `Recommender` (module `base`), and `ScoringRecommender` is the shortest way to write one. There is one
class per method, made by its name with `make`. `nni_hyperfd.recommenders.conformance` tests whether a class keeps the
contract of the interface. Importing this package does not import torch: methods are loaded on first use.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast

from nni_hyperfd.recommenders.base import MeasuredDataset, Recommender, ScoringRecommender, Task
from nni_hyperfd.space import EncodedConfigurations

__all__ = ["NAMES", "EncodedConfigurations", "MeasuredDataset", "Recommender", "ScoringRecommender", "Task", "make"]

_HOME = {
    "random": "simple:RandomSearch",
    "best_on_source": "simple:BestOnSource",
    "mean_rank": "simple:MeanRank",
    "knn": "simple:NearestTasks",
    "tr_automl": "tr_automl:TrAutoML",
    "hyperstar": "hyperstar:HyperSTAR",
    "scot": "scot:SCoT",
    "hyperfd": "hyperfd:HyperFD",
    "hyperfd_paper": "paper:PaperHyperFD",
    "hyperfd_mse": "paper:MSEHyperFD",
    "hyperfd_resnet": "described:ResNetHyperFD",
    "hyperfd_statistics": "described:StatisticsHyperFD",
}

NAMES = tuple(_HOME)
"""Names of the built-in recommenders."""


def make(name: str, seed: int = 0) -> Recommender:
    """Make a new built-in recommender.

    Args:
        name: one of `NAMES`.
        seed: of all its random numbers.

    Raises:
        ValueError: there is no recommender of this name.
    """
    if name not in _HOME:
        raise ValueError(f"There is no recommender {name!r}; choose among {', '.join(NAMES)}.")
    module, kind = _HOME[name].split(":")
    constructor = cast(Callable[..., Recommender], getattr(import_module(f"{__name__}.{module}"), kind))
    return constructor(seed=seed)
