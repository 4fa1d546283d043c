"""Optuna's samplers. All are told of the candidate that was run (`add_trial`), failures included.

By default they draw ten trials at random before they look at a result, more than a budget of four allows; here the
first only.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from nni_hyperfd.benchmark.alternatives import Unavailable
from nni_hyperfd.benchmark.alternatives.base import Alternative, PastResults, Point, TransferAlternative

META_TPE = "samplers/meta_learn_tpe"

optuna.logging.set_verbosity(optuna.logging.ERROR)


class _Optuna(Alternative):
    @abstractmethod
    def sampler(self, seed: int) -> BaseSampler | None: ...

    def begin(self, seed: int) -> optuna.Study | None:
        self._distributions: dict[str, BaseDistribution] = {
            name: FloatDistribution(*bounds) for name, bounds in self.space.numbers.items()
        } | {name: CategoricalDistribution(values) for name, values in self.space.categories.items()}
        sampler = self.sampler(seed)
        return None if sampler is None else optuna.create_study(direction="maximize", sampler=sampler)

    def propose(self) -> Point:
        # The trial asked for is closed at once: it is the candidate's that counts.
        trial = self.search.ask(self._distributions)
        self.search.tell(trial, state=TrialState.FAIL)
        return trial.params

    def observe(self, index: int, performance: float) -> None:
        self.search.add_trial(self.trial(self.candidates.vectors[index], performance))

    def trial(self, vector: np.ndarray, performance: float) -> FrozenTrial:
        finite = bool(np.isfinite(performance))
        return create_trial(
            state=TrialState.COMPLETE if finite else TrialState.FAIL,
            value=performance if finite else None,
            params=self.space.point(vector),
            distributions=self._distributions,
        )


class OptunaTPE(_Optuna):
    """TPE, multivariate and univariate as the version's default is."""

    def sampler(self, seed: int) -> BaseSampler:
        return TPESampler(seed=seed, n_startup_trials=1)


class OptunaGP(_Optuna):
    """A Gaussian process."""

    def sampler(self, seed: int) -> BaseSampler:
        return GPSampler(seed=seed, n_startup_trials=1)


class OptunaMetaTPE(_Optuna, TransferAlternative):
    """OptunaHub's TPE with meta-learning: past tasks are studies that it weighs by their similarity.

    optunahub loads it from its registry on the network, once; afterwards from its cache (OPTUNAHUB_CACHE_HOME).
    """

    def __init__(self, *arguments) -> None:
        import optunahub

        try:
            self._sampler = optunahub.load_module(META_TPE).MetaLearnTPESampler
        except Exception as error:  # git's, GitHub's or the file system's
            raise Unavailable(
                f"optuna_meta_tpe is loaded by optunahub from its registry, {META_TPE}, which cannot be reached: "
                f"load it once where there is a network, or leave it out with --only."
            ) from error
        super().__init__(*arguments)

    def sampler(self, seed: int) -> BaseSampler | None:
        if not self.usable:
            return None
        return self._sampler(source_studies=[self._study(past) for past in self.usable], seed=seed, n_startup_trials=1)

    def _study(self, past: PastResults) -> optuna.Study:
        study = optuna.create_study(direction="maximize")
        study.add_trials(map(self.trial, past.vectors, past.performance.tolist()))
        return study

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "_sampler"}  # loaded, not to be kept
