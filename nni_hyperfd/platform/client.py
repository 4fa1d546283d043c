"""What the data owner's side needs of a platform, wherever that is: the one interface of advisor and tuner."""

from __future__ import annotations

from abc import ABC, abstractmethod

from nni_hyperfd.platform.presets import Recommendation
from nni_hyperfd.space import Configuration, SearchSpace
from nni_hyperfd.state.errors import StateError
from nni_hyperfd.state.views import TaskView, TrialView
from nni_hyperfd.task import Phase, TaskSettings
from nni_hyperfd.wire import Description, ExtractorUpdate, Job


class AwayError(StateError):
    """The platform cannot be reached, or cannot work, for a while; nothing says that it has not heard the call."""

    def __init__(self, message: str, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds
        """After which it is worth another attempt, where the platform says so."""


class PlatformClient(ABC):
    """A platform as a data owner sees it.

    Every method that changes something may be called again with the same arguments when its answer was lost: the second
    call changes nothing and answers as the first one did. So a result is neither lost nor kept twice over a network.

    Raises:
        StateError: from any method, when the platform cannot read or write its state now.
    """

    # -- the way of one task -------------------------------------------------------------------------------------------

    @abstractmethod
    def open_task(self, experiment: str, space: SearchSpace, settings: TaskSettings) -> int:
        """Begin the task of an experiment, or go on with it, and return its id.

        Raises:
            SpaceError: the experiment was begun with another search space, or the space uses a reserved name.
        """

    @abstractmethod
    def next_trial(self, task_id: int) -> TrialView | None:
        """The next planned trial, or None while there is none to run. It stays the next one until it is started."""

    @abstractmethod
    def start(self, trial_id: int, parameter_id: int) -> None:
        """Note that a planned trial was handed out under NNI's parameter id."""

    @abstractmethod
    def take(self, task_id: int, parameter_id: int, configuration: Configuration, rank: int | None = None) -> None:
        """Note that a pick of the client's own was handed out, made while it could not reach the platform.

        It takes the place of a pick that is planned and was not handed out, if there is one, so that no more than the
        budget is run.

        Args:
            task_id: of the task.
            parameter_id: NNI's.
            configuration: what the trial tries.
            rank: its place in the ranking that it was picked from.

        Raises:
            SpaceError: the configuration lies outside the task's search space.
        """

    @abstractmethod
    def ranking(self, task_id: int) -> list[Recommendation]:
        """The best untried candidates as things stand, from the best one, at most as many as the budget."""

    @abstractmethod
    def job(self, task_id: int, phase: Phase) -> Job | None:
        """What a service trial of the task is to do; None for a phase whose trials try a configuration."""

    @abstractmethod
    def describe(self, task_id: int, parameter_id: int, description: Description) -> None:
        """Keep what the extract trial found out, which ends that phase; the first description stands.

        Raises:
            RefusedError: it was made by an extractor that the platform does not have or does not accept.
        """

    @abstractmethod
    def observe(self, task_id: int, parameter_id: int, performance: float | None, reason: str | None = None) -> None:
        """Keep a trial's performance, or None for a failed one. Durable on return; the first performance stands."""

    @abstractmethod
    def add_experience(
        self, task_id: int, configuration: Configuration, performance: float, phase: Phase = Phase.FINE_TUNE
    ) -> None:
        """Keep a result that comes with its configuration only; one that is there already is not kept twice.

        Raises:
            SpaceError: the configuration lies outside the task's search space.
        """

    @abstractmethod
    def settle(self, task_id: int) -> None:
        """Plan the learn trial, or close the task, if its trials have ended and the budget is spent."""

    @abstractmethod
    def prepare(self, task_id: int) -> None:
        """Learn now, while no trial waits for it, what the task's first pick will need."""

    @abstractmethod
    def release(self, task_id: int, gone: set[tuple[int, int | None]]) -> None:
        """Plan running trials anew, which NNI does not run again after a resume.

        Args:
            task_id: of their task.
            gone: (trial id, parameter id) of each; a trial that runs under another parameter id by now is left alone.
        """

    @abstractmethod
    def close_task(self, task_id: int, update: ExtractorUpdate | None = None) -> None:
        """Take in the client's update of the extractor, learn from the task, and close it.

        Raises:
            RefusedError: the update does not fit the extractor. Nothing has changed then; call again without it.
        """

    @abstractmethod
    def forget(self, task_id: int) -> bool:
        """Remove a task without any result; whether it was removed."""

    # -- looking in ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def task(self, task_id: int) -> TaskView:
        """A task as it stands now.

        Raises:
            UnknownTaskError: there is no such task.
        """

    @property
    def away(self) -> float | None:
        """Seconds until a platform that cannot be reached is worth another attempt; None for one that can."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections."""
