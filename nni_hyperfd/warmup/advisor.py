"""What NNI runs in an experiment that measures pairs: every trial gets the next one, wherever it runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nni_hyperfd.experiment.advisor import HyperFDAdvisor
from nni_hyperfd.wire import final_number

if TYPE_CHECKING:
    from nni_hyperfd.experiment.tuner import TrialRequest
    from nni_hyperfd.warmup.pairs import Pair

DATA = "data"
"""The parameter that names a trial's sub-data-set."""


class PairAdvisor(HyperFDAdvisor):
    """Hands out the pairs of a file; `hyperfd warmup collect` puts it into the experiment.

    NNI's plain tuner cannot do this: it is asked for a trial in place of a failed one before it hears of the failure,
    and is never asked again when it has none.
    """

    _pairs: PairTuner

    def handle_trial_end(self, data: dict[str, Any]) -> None:
        """Record a trial's end. NNI calls a trial that was killed by a signal cancelled; here, it has failed."""
        parameter_id = json.loads(data["hyper_params"])["parameter_id"]
        self._pairs.trial_end(parameter_id, data["trial_job_id"], data["event"])
        self._flush()

    def _load_tuner(self) -> PairTuner:  # type: ignore[override]  # what the advisor calls of a ServiceTuner, it has
        self._pairs = PairTuner(**self._class_args)
        return self._pairs


class PairTuner:
    """The pairs of a file, in the form in which the advisor asks for trials.

    Args:
        pairs: path of the file (`nni_hyperfd.warmup.pairs.PairFile`).
    """

    def __init__(self, pairs: str) -> None:
        from nni_hyperfd.experiment.tuner import experiment_id
        from nni_hyperfd.warmup.pairs import PairFile

        self._file, self._experiment = PairFile(pairs), experiment_id()

    @property
    def done(self) -> bool:
        """Whether every pair has succeeded or failed."""
        progress = self._file.progress()
        return progress.ended == progress.total

    away = None
    """Its platform is a file, which is there."""

    def update_search_space(self, search_space: dict[str, Any]) -> None:
        """Do nothing: the configurations are in the file already."""

    def prepare(self) -> None:
        """Do nothing: there is nothing to learn."""

    def next_parameter_id(self) -> int:
        """Return the first parameter id that this experiment has not used."""
        return 1 + max(self._file.parameter_ids(self._experiment), default=-1)

    def ask(self, parameter_id: int) -> TrialRequest | None:
        """Return the next pair, to run under NNI's `parameter_id`; None while there is none."""
        from nni_hyperfd.experiment.tuner import TrialRequest

        pair = self._file.claim(self._experiment, parameter_id)
        return None if pair is None else TrialRequest(_parameters(pair))

    def receive_intermediate(self, parameter_id: int, value: Any) -> None:
        """Do nothing: only the final result counts."""

    def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any) -> None:
        """Record a trial's final result, which may be anything."""
        number = final_number(value)
        if number is None:
            self._file.fail(self._experiment, parameter_id, f"reported {value!r} instead of a finite number")
        else:
            self._file.succeed(self._experiment, parameter_id, number)

    def trial_end(self, parameter_id: int, trial: str, event: str) -> None:
        """Record a trial's end; it has failed if it was still running, that is, without a result.

        Args:
            parameter_id: the trial's.
            trial: NNI's id of the trial.
            event: how it ended, in NNI's words.
        """
        outcome = "ended without reporting a result" if event == "SUCCEEDED" else event
        self._file.fail(self._experiment, parameter_id, f"trial {trial} of experiment {self._experiment}: {outcome}")

    def import_data(self, data: list[dict[str, Any]]) -> None:
        """Take in all results again, as NNI sends them after `nnictl resume`, with those of trials that it repeated."""
        pairs = self._file.parameter_ids(self._experiment)
        for entry in data:
            for parameter_id, pair in pairs.items():
                if entry.get("parameter") == _parameters(pair):
                    self.receive_trial_result(parameter_id, None, entry.get("value"))

    def release(self, still_running: set[int]) -> None:
        """Plan pairs again that NNI does not run again after `nnictl resume`."""
        self._file.release(self._experiment, still_running)


def _parameters(pair: Pair) -> dict[str, Any]:
    return {DATA: pair.data, **pair.configuration}
