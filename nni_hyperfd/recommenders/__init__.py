"""Who proposes the next configuration. One interface (`base`), one class per method, made by name with `make`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nni_hyperfd.recommenders.base import Recommender

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


def make(name: str, seed: int = 0) -> Recommender:
    """A new recommender by its name. Raises ValueError for a name that is none of `NAMES`."""
    if name not in _HOME:
        raise ValueError(f"There is no recommender {name!r}; choose among {', '.join(NAMES)}.")
    module, kind = _HOME[name].split(":")
    return getattr(import_module(f"{__name__}.{module}"), kind)(seed=seed)
