"""NNI's own tuners, which come with the package's NNI."""

from __future__ import annotations

import logging
import random
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

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
    """A tuner, led as NNI's dispatcher does: parameters, their result, the trial's end."""

    @abstractmethod
    def tuner(self, seed: int) -> Tuner: ...

    def begin(self, seed: int) -> Tuner:
        self._trials: dict[int, int] = {}
        tuner = self.tuner(seed)
        tuner.update_search_space(self.definition())
        return tuner

    def definition(self) -> dict[str, dict]:
        numbers = {name: {"_type": "uniform", "_value": list(bounds)} for name, bounds in self.space.numbers.items()}
        choices = {name: {"_type": "choice", "_value": values} for name, values in self.space.categories.items()}
        return numbers | choices

    def propose(self) -> Point | None:
        self._last = len(self.asked)
        try:
            return self.search.generate_parameters(self._last)
        except nni.NoMoreTrialError:
            return None

    def run(self, index: int) -> None:
        self._trials[index] = self._last


class NNIRandom(_NNI):
    """Random. It does not look at results."""

    def tuner(self, seed: int) -> Tuner:
        return RandomTuner(seed=seed)


class NNITPE(_NNI):
    """TPE, which draws at random before its 20th result by default; here before its second, the least: with one result
    its categories fail.

    The result is told for the candidate that was run, by `import_data`.
    """

    def tuner(self, seed: int) -> Tuner:
        return TpeTuner(optimize_mode="maximize", seed=seed, tpe_args={"n_startup_jobs": 2})

    def observe(self, index: int, performance: float) -> None:
        self.search.trial_end(self._trials[index], False)  # the proposal itself has not been run
        if np.isfinite(performance):
            self.search.import_data([{"parameter": self.point(index), "value": performance}])


class NNIEvolution(_NNI):
    """Evolution. Its first 32 trials, the population, are drawn at random by default; here the first two.

    It has no way to be told of another configuration than it proposed: a result counts for the proposal. It draws from
    generators that it does not let be seeded; they are set here.
    """

    def tuner(self, seed: int) -> Tuner:
        self._random = random.Random(seed)
        return EvolutionTuner(optimize_mode="maximize", population_size=2)

    def begin(self, seed: int) -> Tuner:
        tuner = super().begin(seed)
        tuner.random_state, tuner.population = np.random.RandomState(seed), []
        for _ in range(tuner.population_size):
            tuner._random_generate_individual()
        return tuner

    def propose(self) -> Point | None:
        if not self.search.population:  # all of it is being tried
            self._last = None
            return None
        with _drawing_from(self._random):
            return super().propose()

    def run(self, index: int) -> None:
        if self._last in self.search.running_trials:
            super().run(index)

    def observe(self, index: int, performance: float) -> None:
        if index not in self._trials:
            return
        with _drawing_from(self._random):
            if np.isfinite(performance):
                self.search.receive_trial_result(self._trials[index], None, performance)
            self.search.trial_end(self._trials[index], bool(np.isfinite(performance)))


@contextmanager
def _drawing_from(own: random.Random) -> Iterator[None]:
    """Within the block, Python's global generator goes on where `own` stands."""
    outer = random.getstate()
    random.setstate(own.getstate())
    try:
        yield
    finally:
        own.setstate(random.getstate())
        random.setstate(outer)
