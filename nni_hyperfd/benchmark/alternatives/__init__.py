"""What a user would pick instead: other libraries' searches as recommenders (`base`), run by `python -m` this package.

One module per library. All but NNI's tuners need the extra `alternatives`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nni_hyperfd.recommenders.base import Recommender

EXTRA = "alternatives"

_HOME = {
    "nni_random": "nni_tuners:NNIRandom",
    "nni_tpe": "nni_tuners:NNITPE",
    "nni_evolution": "nni_tuners:NNIEvolution",
    "optuna_tpe": "optuna_samplers:OptunaTPE",
    "optuna_gp": "optuna_samplers:OptunaGP",
    "optuna_meta_tpe": "optuna_samplers:OptunaMetaTPE",
    "smac": "smac_facade:SMAC",
    "syne_zero_shot": "syne_tune_schedulers:SyneZeroShot",
    "syne_bounding_box": "syne_tune_schedulers:SyneBoundingBox",
    "syne_quantile": "syne_tune_schedulers:SyneQuantile",
    "flaml_portfolio": "flaml_portfolio:FLAMLPortfolio",
}

NAMES = tuple(_HOME)


class Unavailable(RuntimeError):
    """A library, or what it loads at run time, is not there; the message says what to do."""


def make(name: str, seed: int = 0, columns: Sequence[int] = ()) -> Recommender:
    """A new recommender by its name, for a table's `columns`. Raises Unavailable without its library, ValueError for a
    name that is none of `NAMES`."""
    if name not in _HOME:
        raise ValueError(f"There is no alternative {name!r}; choose among {', '.join(NAMES)}.")
    module, kind = _HOME[name].split(":")
    try:
        return getattr(import_module(f"{__name__}.{module}"), kind)(seed, columns)
    except ImportError as error:
        raise Unavailable(
            f"{name} needs a library that is not installed ({error}): pip install 'nni-hyperfd[{EXTRA}]'."
        ) from error
