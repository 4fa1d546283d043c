"""What NNI runs in an experiment that measures pairs: every trial gets the next one, whoever runs it and where."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nni_hyperfd.experiment.advisor import HyperFDAdvisor

if TYPE_CHECKING:
    from nni_hyperfd.experiment.tuner import Job
    from nni_hyperfd.warmup.pairs import Pair

DATA = "data"
"""The parameter that names a trial's sub-data-set."""


class PairAdvisor(HyperFDAdvisor):
    """Hands out the pairs of a file; `hyperfd warmup collect` puts it into the experiment.

    Not NNI's plain tuner: that one is asked for a trial in place of the one that failed before it hears of the failure,
    and is never asked again when it has none.
    """

    def handle_trial_end(self, data: dict[str, Any]) -> None:
        # NNI calls a trial that a signal has killed cancelled, as one that its user ends: both have failed here.
        parameter_id = json.loads(data["hyper_params"])["parameter_id"]
        self._tuner.trial_end(parameter_id, data["trial_job_id"], data["event"])
        self._flush()

    def _load_tuner(self) -> PairTuner:
        return PairTuner(**self._class_args)


class PairTuner:
    """The pairs of a file as the advisor asks for them.

    Args:
        pairs: the file (`nni_hyperfd.warmup.pairs.PairFile`).
    """

    def __init__(self, pairs: str) -> None:
        from nni_hyperfd.experiment.tuner import experiment_id
        from nni_hyperfd.warmup.pairs import PairFile

        self._pairs, self._experiment = PairFile(pairs), experiment_id()

    @property
    def done(self) -> bool:
        progress = self._pairs.progress()
        return progress.ended == progress.total

    def update_search_space(self, search_space: dict[str, Any]) -> None:
        """The configurations are in the file already."""

    def prepare(self) -> None:
        """There is nothing to learn."""

    def next_parameter_id(self) -> int:
        return 1 + max(self._pairs.parameter_ids(self._experiment), default=-1)

    def ask(self, parameter_id: int) -> Job | None:
        """The next pair under NNI's `parameter_id`; None while there is none."""
        from nni_hyperfd.experiment.tuner import Job

        pair = self._pairs.claim(self._experiment, parameter_id)
        return None if pair is None else Job(_parameters(pair))

    def receive_intermediate(self, parameter_id: int, value: Any) -> None:
        """Only the final result counts."""

    def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any) -> None:
        from nni_hyperfd.wire import is_finite_number

        number = performance(value)
        if is_finite_number(number):
            self._pairs.succeed(self._experiment, parameter_id, float(number))
        else:
            self._pairs.fail(self._experiment, parameter_id, f"reported {number!r} instead of a finite number")

    def trial_end(self, parameter_id: int, trial: str, event: str) -> None:
        """A trial has ended; one whose result is there already is none of the running ones any more."""
        outcome = "ended without reporting a result" if event == "SUCCEEDED" else event
        self._pairs.fail(self._experiment, parameter_id, f"trial {trial} of experiment {self._experiment}: {outcome}")

    def import_data(self, data: list[dict[str, Any]]) -> None:
        """After `nnictl resume` NNI repeats all results, and brings those of trials that it has run again."""
        pairs = self._pairs.parameter_ids(self._experiment)
        for entry in data:
            for parameter_id, pair in pairs.items():
                if entry.get("parameter") == _parameters(pair):
                    self.receive_trial_result(parameter_id, None, entry.get("value"))

    def release(self, still_running: set[int]) -> None:
        self._pairs.release(self._experiment, still_running)


def performance(value: Any) -> Any:
    """The number in a final result, which may be anything."""
    return value.get("default") if isinstance(value, dict) else value


def _parameters(pair: Pair) -> dict[str, Any]:
    return {DATA: pair.data, **pair.configuration}
