"""Optuna's samplers. All are told of the candidate that was run (`add_trial`), failures included.

By default they draw ten trials at random before they look at a result, which is more than a budget of four; here only
the first one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from nni_hyperfd.benchmark.alternatives import Unavailable
from nni_hyperfd.benchmark.alternatives.base import Alternative, PastResults, Point, TransferAlternative

META_TPE = "samplers/meta_learn_tpe"
"""Name in OptunaHub's registry."""

optuna.logging.set_verbosity(optuna.logging.ERROR)


class _Optuna(Alternative):
    """A study with one of the samplers."""

    @abstractmethod
    def sampler(self, seed: int) -> BaseSampler | None:
        """Make the sampler; None where it cannot sample."""

    def begin(self, seed: int) -> optuna.Study | None:
        """Start a study."""
        self._distributions: dict[str, BaseDistribution] = {
            name: FloatDistribution(*bounds) for name, bounds in self.space.numbers.items()
        } | {name: CategoricalDistribution(values) for name, values in self.space.categories.items()}
        sampler = self.sampler(seed)
        return None if sampler is None else optuna.create_study(direction="maximize", sampler=sampler)

    def propose(self) -> Point:
        """Parameters of a new trial, which is closed at once: the candidate's own trial is added in its place."""
        trial = self.search.ask(self._distributions)
        self.search.tell(trial, state=TrialState.FAIL)
        return cast(Point, trial.params)

    def observe(self, index: int, performance: float) -> None:
        """Add the candidate's trial."""
        self.search.add_trial(self.trial(self.candidates.vectors[index], performance))

    def trial(self, vector: NDArray[np.float32], performance: float) -> FrozenTrial:
        """A trial that has ended, of an encoded configuration (d,); a performance of NaN is a failure."""
        finite = bool(np.isfinite(performance))
        return create_trial(
            state=TrialState.COMPLETE if finite else TrialState.FAIL,
            value=performance if finite else None,
            params=self.space.point(vector),
            distributions=self._distributions,
        )


class OptunaTPE(_Optuna):
    """TPE, multivariate or univariate as is the default of Optuna's version."""

    def sampler(self, seed: int) -> BaseSampler:
        """Make the sampler."""
        return TPESampler(seed=seed, n_startup_trials=1)


class OptunaGP(_Optuna):
    """A Gaussian process."""

    def sampler(self, seed: int) -> BaseSampler:
        """Make the sampler."""
        return GPSampler(seed=seed, n_startup_trials=1)


class OptunaMetaTPE(_Optuna, TransferAlternative):
    """OptunaHub's TPE with meta-learning: past tasks are studies that are weighted by their similarity.

    optunahub loads it from its registry over the network once, afterwards from its cache (OPTUNAHUB_CACHE_HOME).

    Raises:
        Unavailable: it is not in the cache and the registry cannot be reached.
    """

    def __init__(self, seed: int = 0, columns: Sequence[int] = ()) -> None:
        import optunahub

        try:
            self._sampler = optunahub.load_module(META_TPE).MetaLearnTPESampler
        except Exception as error:  # git's, GitHub's or the file system's
            raise Unavailable(
                f"optuna_meta_tpe is loaded by optunahub from its registry, {META_TPE}, which cannot be reached: "
                f"load it once where there is a network, or leave it out with --only."
            ) from error
        super().__init__(seed, columns)

    def sampler(self, seed: int) -> BaseSampler | None:
        """Make the sampler; None without past tasks."""
        if not self.usable:
            return None
        return self._sampler(source_studies=[self._study(past) for past in self.usable], seed=seed, n_startup_trials=1)

    def _study(self, past: PastResults) -> optuna.Study:
        """A past task as a study."""
        study = optuna.create_study(direction="maximize")
        study.add_trials(map(self.trial, past.vectors, past.performance.tolist()))
        return study

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_sampler"}  # loaded, not to be kept
