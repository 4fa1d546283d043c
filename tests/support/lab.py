"""Experiments without NNI's processes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest

from support.made_up import MadeUpDataset


class Lab:
    """One state file and the experiments on it.

    Tuners are driven as the advisor drives them, service trials are the real hook; only NNI's processes between the two
    are left out, which tests/end_to_end has.
    """

    space: ClassVar = {
        "kind": {"_type": "choice", "_value": ["a", "b", "c"]},
        "x": {"_type": "choice", "_value": [0.0, 0.25, 0.5, 0.75, 1.0]},
        "y": {"_type": "choice", "_value": [1, 2]},
    }
    dataset = MadeUpDataset

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.state, self._monkeypatch = folder, folder / "state.sqlite", monkeypatch
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        monkeypatch.setenv("XDG_DATA_HOME", str(folder / "user"))
        monkeypatch.delenv("NNI_TRIAL_COMMAND_CHANNEL", raising=False)

    def experiment(self, name: str) -> None:
        """From now on, tuners belong to this NNI experiment."""
        from nni_hyperfd.experiment import tuner

        log = str(self.folder / "experiments" / name / "log")
        self._monkeypatch.setattr(
            tuner, "dispatcher_env_vars", tuner.dispatcher_env_vars._replace(NNI_LOG_DIRECTORY=log)
        )

    def tuner(self, experiment: str, space: dict | None = None, **class_args: Any):
        """A `ServiceTuner` with its search space, as after NNI's `Initialize`."""
        from nni_hyperfd.experiment.tuner import ServiceTuner

        self.experiment(experiment)
        tuner = ServiceTuner(**{"state": str(self.state), "candidates": 20, "warm_start": "none", **class_args})
        tuner.update_search_space(self.space if space is None else space)
        return tuner

    def serve(self, request: Any, dataset: Any = None) -> tuple[list[Any], list[Any]]:
        """Let the hook do a service job; what it reported as intermediate and as final results."""
        import nni.runtime.trial_command_channel as nni_channel

        import nni_hyperfd

        record = request.record(0)
        reported: dict[str, list[Any]] = {"PERIODICAL": [], "FINAL": []}

        class Channel(nni_channel.TrialCommandChannel):
            def receive_parameter(self) -> Any:
                return json.loads(json.dumps(record))

            def send_metric(self, type: str, value: Any, **_: Any) -> None:
                reported[type].append(json.loads(json.dumps(value)))

        with self._monkeypatch.context() as patch:
            patch.setattr(nni_channel, "_channel", Channel())
            with pytest.raises(SystemExit) as end:
                nni_hyperfd.get_next_parameter(dataset or self.dataset(1))
        assert end.value.code == 0
        return reported["PERIODICAL"], reported["FINAL"]

    def step(self, tuner: Any, dataset: Any = None, score: Callable[[dict], Any] | None = None) -> Any:
        """Ask for one trial, run it and report its results; what was asked for, or None."""
        parameter_id = tuner.next_parameter_id()
        request = tuner.ask(parameter_id)
        if request is None:
            return None
        if request.job:
            intermediate, final = self.serve(request, dataset)
        else:
            intermediate, final = [0.1], [{"default": (score or self.score)(request.configuration)}]
        for value in intermediate:
            tuner.receive_intermediate(parameter_id, value)
        for value in final:
            tuner.receive_trial_result(parameter_id, None, value)
        tuner.trial_end(parameter_id, True)
        return request

    def run(self, tuner: Any, dataset: Any = None, score: Callable[[dict], Any] | None = None) -> list[dict]:
        """The whole task; the parameters of its trials in order."""
        parameters = []
        while not tuner.done:
            request = self.step(tuner, dataset, score)
            assert request is not None, "a task that is not done has no trial to run"
            parameters.append(request.record(0)["parameters"])
        assert tuner.ask(tuner.next_parameter_id()) is None
        return parameters

    def content(self) -> bytes:
        """The state as the bytes of one file, whoever still has it open."""
        with closing(sqlite3.connect(self.state)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return self.state.read_bytes()

    @staticmethod
    def score(parameters: dict) -> float:
        return 0.5 + 0.1 * parameters["x"] - 0.05 * (parameters["kind"] == "b") + 0.01 * parameters["y"]
