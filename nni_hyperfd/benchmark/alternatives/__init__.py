"""Other libraries' searches as recommenders, run by `python -m nni_hyperfd.benchmark.alternatives`.

One module per library. All but NNI's tuners need the extra `alternatives`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import cast

from nni_hyperfd.recommenders import Recommender

EXTRA = "alternatives"
"""The extra that installs the libraries."""

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
"""Names of the alternatives."""


class Unavailable(RuntimeError):
    """A library, or what it loads at run time, is not there; the message says what to do."""


def make(name: str, seed: int = 0, columns: Sequence[int] = ()) -> Recommender:
    """Make a new recommender.

    Args:
        name: one of `NAMES`.
        seed: of all its random numbers.
        columns: number of entries of each parameter in encoded configurations (`tables.Table.columns`).

    Raises:
        Unavailable: its library is not installed.
        ValueError: there is no alternative of this name.
    """
    if name not in _HOME:
        raise ValueError(f"There is no alternative {name!r}; choose among {', '.join(NAMES)}.")
    module, kind = _HOME[name].split(":")
    try:
        constructor = cast(Callable[..., Recommender], getattr(import_module(f"{__name__}.{module}"), kind))
        return constructor(seed, columns)
    except ImportError as error:
        raise Unavailable(
            f"{name} needs a library that is not installed ({error}): pip install 'nni-hyperfd[{EXTRA}]'."
        ) from error
