"""SMAC3's facade for hyper-parameters: a random forest with expected improvement."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import joblib
import numpy as np
from ConfigSpace import Categorical, Configuration, ConfigurationSpace, Float
from smac import HyperparameterOptimizationFacade, Scenario
from smac.main.exceptions import ConfigurationSpaceExhaustedException
from smac.runhistory.dataclasses import TrialInfo, TrialValue
from smac.runhistory.enumerations import StatusType

from nni_hyperfd.benchmark.alternatives.base import Alternative, Point


class SMAC(Alternative):
    """SMAC3, whose initial design takes at most a quarter of the budget, by its own rule, and at least one trial.

    A result is told for the candidate that was run: `tell` takes configurations that were not asked for. What was asked
    for counts as still running. A failure counts as the worst result so far, as the forest takes no infinite cost;
    without any result yet it is not told.
    """

    def begin(self, seed: int) -> HyperparameterOptimizationFacade:
        """Make the facade, whose files are removed at once."""
        space = ConfigurationSpace(seed=seed)
        space.add([Float(name, bounds) for name, bounds in self.space.numbers.items()])
        space.add([Categorical(name, values) for name, values in self.space.categories.items()])
        with TemporaryDirectory() as folder:
            scenario = Scenario(
                space,
                deterministic=True,
                n_trials=max(self.task.budget, 4),
                seed=seed,
                output_directory=Path(folder),
            )
            return HyperparameterOptimizationFacade(scenario, None, overwrite=True, logging_level=False)

    def propose(self) -> Point | None:
        """The configuration that it asks for; None when the space or its budget is exhausted."""
        try:
            with joblib.parallel_config(backend="sequential"):  # ten small trees: threads cost more than they save
                self._asked = self.search.ask()
        except (StopIteration, ConfigurationSpaceExhaustedException):
            return None
        return cast(Point, dict(self._asked.config))

    def observe(self, index: int, performance: float) -> None:
        """Tell it the candidate's result as a cost."""
        config = Configuration(self.search.scenario.configspace, values=self.point(index))
        if np.isfinite(performance):
            value = TrialValue(-performance, status=StatusType.SUCCESS)
        elif known := [told.cost for told in self.search.runhistory.values() if told.status == StatusType.SUCCESS]:
            value = TrialValue(max(known), status=StatusType.CRASHED)
        else:
            return
        self.search.tell(TrialInfo(config, seed=self._asked.seed), value, save=False)
