"""What a task's page is about: the task as the state has it, and what its trials have left on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from nni_hyperfd.detector import best, experiments
from nni_hyperfd.detector.experiments import START, Experiment, FinishedTrial
from nni_hyperfd.detector.measures import Matched
from nni_hyperfd.detector.onnx_detector import MODEL
from nni_hyperfd.files import FolderError
from nni_hyperfd.platform import Platform, TaskView
from nni_hyperfd.report.page import MissingError
from nni_hyperfd.space import PARAMETERS, Architecture


@dataclass(frozen=True)
class Attempt:
    """A configuration that was tried.

    Attributes:
        number: of the trial within the task, from 1.
        parameters: its values; an architecture is one of them.
        expected: what was expected of it, in normal scores; None where that is not known.
        rank: its place among the candidates when it was picked.
        ap: what came out; None for one that failed or runs.
        status: where it stands, with the reason of a failure.
        started: when it was handed out.
        ended: when it ended.
        seconds: duration.
    """

    number: int
    parameters: Mapping[str, object]
    expected: float | None
    rank: int | None
    ap: float | None
    status: str
    started: datetime | None
    ended: datetime | None
    seconds: float | None


class Subject:
    """The task and the trials; either may be missing, and whoever needs it gets a `MissingError`.

    Args:
        experiment: NNI's id of the experiment, or its folder.
        state: the state file, which need not exist.
        progress: called with each step that takes long.
    """

    def __init__(self, experiment: Path | str, state: Path, progress: Callable[[str], None]) -> None:
        self.id, self.state, self.progress = Path(experiment).name, state, progress
        self._not_here = ""
        self._experiment: Experiment | None = None
        try:
            self._experiment = experiments.find(experiment)
            self.id = self._experiment.id
        except FolderError as error:
            self._not_here = str(error)
        self.platform = Platform(state) if state.exists() else None
        self._task = None
        if self.platform is not None:
            self._task = next((task for task in self.platform.tasks() if task.experiment == self.id), None)

    @property
    def task(self) -> TaskView:
        """The task."""
        if self._task is None:
            raise MissingError(f"The state {self.state.name} has no task of this experiment.")
        return self._task

    @property
    def has_task(self) -> bool:
        """Whether the state has the task."""
        return self._task is not None

    @property
    def folder(self) -> Path:
        """NNI's folder for the experiment."""
        if self._experiment is None:
            raise MissingError(f"The experiment's trials are not on this machine ({self._not_here}).")
        return self._experiment.folder

    @cached_property
    def trials(self) -> list[FinishedTrial]:
        """The finished trials on this machine; there may be none."""
        return [] if self._experiment is None else self._experiment.trials()

    @cached_property
    def best(self) -> FinishedTrial:
        """The best trial, with its images."""
        _ = self.folder
        if not self.trials:
            raise MissingError("No trial has left a detector on this machine.")
        trial = max(self.trials, key=lambda trial: trial.best)
        if trial.data is None or not trial.data.is_dir():
            raise MissingError(f"The images of the task are not on this machine ({trial.data or 'unknown'}).")
        return trial

    @cached_property
    def matched(self) -> dict[str, dict[str, Matched]]:
        """Detections matched to faces: `before` and `after`, each by split."""
        trial = self.best
        return {
            name: best.matched(trial, model, self.progress) for name, model in (("before", START), ("after", MODEL))
        }

    @cached_property
    def attempts(self) -> list[Attempt]:
        """All configurations that were tried, in order."""
        if self._task is None:
            return [
                Attempt(number, trial.parameters, None, None, trial.best, "succeeded", None, None, trial.seconds)
                for number, trial in enumerate(self.trials, start=1)
            ]
        tried = [trial for trial in self._task.trials if trial.tries and trial.started is not None]
        return [
            Attempt(
                number,
                _shown(trial.configuration),
                trial.score,
                trial.rank,
                trial.performance,
                f"{trial.status}{f': {trial.reason}' if trial.reason else ''}",
                trial.started,
                trial.ended,
                (trial.ended - trial.started).total_seconds() if trial.ended and trial.started else None,
            )
            for number, trial in enumerate(tried, start=1)
        ]

    @property
    def baseline(self) -> float | None:
        """AP@50 before fine-tuning, the line to beat."""
        if self._task is not None:
            return self._task.baseline
        try:
            return self.matched["before"]["val"].ap()
        except MissingError:
            return None

    @property
    def maximize(self) -> bool:
        """Whether a higher performance is better."""
        return self._task is None or self._task.settings.maximize


def _shown(configuration: Mapping[str, object]) -> dict[str, object]:
    """A configuration, with one value in place of an architecture's many."""
    others = {name: value for name, value in configuration.items() if name not in PARAMETERS}
    if len(others) == len(configuration):
        return others
    return others | {"architecture": str(Architecture.of(configuration))}
