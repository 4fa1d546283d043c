"""NNI's own tuners, which come with the package's NNI."""

from __future__ import annotations

import logging
import random
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import nni
import numpy as np
from nni.algorithms.hpo.evolution_tuner import EvolutionTuner
from nni.algorithms.hpo.random_tuner import RandomTuner
from nni.algorithms.hpo.tpe_tuner import TpeTuner
from nni.tuner import Tuner

from nni_hyperfd.benchmark.alternatives.base import Alternative, Point

for _name in ("nni.algorithms.hpo", "nni.tuner"):
    logging.getLogger(_name).setLevel(logging.ERROR)


class _NNI(Alternative):
    """A tuner that is called as NNI's dispatcher calls it: parameters, their result, the end of the trial."""

    @abstractmethod
    def tuner(self, seed: int) -> Tuner:
        """Make the tuner."""

    def begin(self, seed: int) -> Tuner:
        """Make the tuner and give it the search space."""
        self._trials: dict[int, int] = {}
        tuner = self.tuner(seed)
        tuner.update_search_space(self.definition())
        return tuner

    def definition(self) -> dict[str, dict[str, Any]]:
        """The space as an NNI search space."""
        definition: dict[str, dict[str, Any]] = {}
        for name, bounds in self.space.numbers.items():
            definition[name] = {"_type": "uniform", "_value": list(bounds)}
        for name, values in self.space.categories.items():
            definition[name] = {"_type": "choice", "_value": values}
        return definition

    def propose(self) -> Point | None:
        """Parameters of a new trial, whose id is the number of picks before it."""
        self._last: int | None = len(self.asked)
        try:
            return cast(Point, self.search.generate_parameters(self._last))
        except nni.NoMoreTrialError:
            return None

    def run(self, index: int) -> None:
        """Remember which trial a candidate belongs to."""
        if self._last is not None:
            self._trials[index] = self._last


class NNIRandom(_NNI):
    """Random search, which does not look at results."""

    def tuner(self, seed: int) -> Tuner:
        """Make the tuner."""
        return RandomTuner(seed=seed)


class NNITPE(_NNI):
    """TPE. By default it draws at random before its 20th result; here before its second, the minimum.

    With a single result its categorical parameters fail. A result is told for the candidate that was run, by
    `import_data`.
    """

    def tuner(self, seed: int) -> Tuner:
        """Make the tuner."""
        return TpeTuner(optimize_mode="maximize", seed=seed, tpe_args={"n_startup_jobs": 2})

    def observe(self, index: int, performance: float) -> None:
        """Tell it the candidate's result."""
        self.search.trial_end(self._trials[index], False)  # the proposal itself has not been run
        if np.isfinite(performance):
            self.search.import_data([{"parameter": self.point(index), "value": performance}])


class NNIEvolution(_NNI):
    """Evolution. By default its first 32 trials, the population, are drawn at random; here the first two.

    It cannot be told of another configuration than it proposed: a result counts for the proposal. It draws from
    generators that it does not let one seed; they are set here.
    """

    def tuner(self, seed: int) -> Tuner:
        """Make the tuner."""
        self._random = random.Random(seed)
        return EvolutionTuner(optimize_mode="maximize", population_size=2)

    def begin(self, seed: int) -> Tuner:
        """Make the tuner and draw its population."""
        tuner = super().begin(seed)
        tuner.random_state, tuner.population = np.random.RandomState(seed), []
        for _ in range(tuner.population_size):
            tuner._random_generate_individual()
        return tuner

    def propose(self) -> Point | None:
        """Parameters of a new trial; None when the whole population is being tried."""
        if not self.search.population:
            self._last = None
            return None
        with _drawing_from(self._random):
            return super().propose()

    def run(self, index: int) -> None:
        """Remember which trial a candidate belongs to."""
        if self._last in self.search.running_trials:
            super().run(index)

    def observe(self, index: int, performance: float) -> None:
        """Tell it the result of its proposal."""
        if index not in self._trials:
            return
        with _drawing_from(self._random):
            if np.isfinite(performance):
                self.search.receive_trial_result(self._trials[index], None, performance)
            self.search.trial_end(self._trials[index], bool(np.isfinite(performance)))


@contextmanager
def _drawing_from(own: random.Random) -> Iterator[None]:
    """Within the block, Python's global random generator continues from the state of `own`, which keeps its end."""
    outer = random.getstate()
    random.setstate(own.getstate())
    try:
        yield
    finally:
        own.setstate(random.getstate())
        random.setstate(outer)
