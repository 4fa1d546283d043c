"""A platform behind a server: the calls of `PlatformClient` as HTTP requests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import requests
from pydantic import ValidationError

from nni_hyperfd.client.connection import Connection
from nni_hyperfd.platform import PlatformClient, Recommendation, StateError, TaskView, TrialView, messages
from nni_hyperfd.space import Configuration, SearchSpace
from nni_hyperfd.task import RESULT_PHASES, Phase, TaskSettings
from nni_hyperfd.wire import Description, ExtractJob, ExtractorUpdate, Job, LearnJob, is_finite_number

_M = TypeVar("_M", bound=messages.Message)

_LONGEST_REASON = 2000


class RemotePlatform(PlatformClient):
    """A platform that a server shares.

    A request whose answer does not come is sent again, with growing pauses; every one may be repeated.

    Args:
        address: the server, such as ``https://hyperfd.example.org``.
        token: says which tenant asks, or a function that is asked for it before every request.
        ca_file: certificates that the server's is checked against, in place of the system's.
        retries: how often a request is sent again.

    Raises:
        AwayError: from any method, when the server cannot be reached.
        StateError: from any method, when it does not speak this protocol.
    """

    def __init__(
        self,
        address: str,
        token: str | Callable[[], str | None] | None = None,
        ca_file: Path | None = None,
        retries: int = 6,
    ) -> None:
        self._connection = Connection(address, token if callable(token) else lambda: token, ca_file, retries)

    # -- the way of one task -------------------------------------------------------------------------------------------

    def open_task(self, experiment: str, space: SearchSpace, settings: TaskSettings) -> int:
        """Begin the task of an experiment, or go on with it, and return its id."""
        asked = messages.OpenTask(
            experiment=experiment, space=messages.SpaceMessage.of(space), settings=settings.to_json()
        )
        return self._ask(messages.OpenedTask, "POST", "tasks", asked).id

    def next_trial(self, task_id: int) -> TrialView | None:
        """The next planned trial, or None while there is none to run."""
        found = self._ask(messages.NextTrial, "POST", f"tasks/{task_id}/next-trial").trial
        return None if found is None else found.view()

    def start(self, trial_id: int, parameter_id: int) -> None:
        """Note that a planned trial was handed out under NNI's parameter id."""
        self._tell("PUT", f"trials/{trial_id}/start", messages.Start(parameter_id=parameter_id))

    def take(self, task_id: int, parameter_id: int, configuration: Configuration, rank: int | None = None) -> None:
        """Note that a pick of the client's own was handed out, made while it could not reach the platform."""
        pick = messages.Pick(configuration=dict(configuration), rank=rank)
        self._tell("PUT", f"tasks/{task_id}/picks/{parameter_id}", pick)

    def ranking(self, task_id: int) -> list[Recommendation]:
        """The best untried candidates as things stand, from the best one, at most as many as the budget."""
        found = self._ask(messages.RankingMessage, "GET", f"tasks/{task_id}/ranking").recommended
        return [Recommendation(one.configuration, one.rank, one.score) for one in found]

    def job(self, task_id: int, phase: Phase) -> Job | None:
        """What a service trial of the task is to do; None for a phase whose trials try a configuration."""
        if phase in RESULT_PHASES:
            return None
        from nni_hyperfd.method import weights

        place = f"tasks/{task_id}/jobs/{quote(phase.value)}"
        packed = self._ask(messages.JobMessage, "GET", place).job
        if packed is None:
            return None
        data = self._send("GET", f"{place}/weights/{packed.get('sha256')}").content
        kind = ExtractJob if phase is Phase.EXTRACT else LearnJob
        return kind.unpack(packed | {"tensors": weights.to_text(data)})

    def describe(self, task_id: int, parameter_id: int, description: Description) -> None:
        """Keep what the extract trial found out, which ends that phase."""
        said = messages.Described(description=description.pack())
        self._tell("PUT", f"tasks/{task_id}/descriptions/{parameter_id}", said, fails=parameter_id)

    def observe(self, task_id: int, parameter_id: int, performance: float | None, reason: str | None = None) -> None:
        """Keep a trial's performance, or None for a failed one."""
        if performance is not None and not is_finite_number(performance):  # which JSON has no word for
            performance, reason = None, f"reported {performance}"
        result = messages.Result(performance=performance, reason=None if reason is None else reason[:_LONGEST_REASON])
        self._tell("PUT", f"tasks/{task_id}/results/{parameter_id}", result)

    def add_experience(
        self, task_id: int, configuration: Configuration, performance: float, phase: Phase = Phase.FINE_TUNE
    ) -> None:
        """Keep a result that comes with its configuration only."""
        result = messages.Experience(configuration=dict(configuration), performance=performance, phase=phase)
        self._tell("POST", f"tasks/{task_id}/experience", result)

    def settle(self, task_id: int) -> None:
        """Plan the learn trial, or close the task, if its trials have ended and the budget is spent."""
        self._tell("POST", f"tasks/{task_id}/settle")

    def prepare(self, task_id: int) -> None:
        """Learn now what the task's first pick will need."""
        self._tell("POST", f"tasks/{task_id}/prepare")

    def release(self, task_id: int, gone: set[tuple[int, int | None]]) -> None:
        """Plan running trials anew, which NNI does not run again after a resume."""
        self._tell("POST", f"tasks/{task_id}/release", messages.Release(gone=list(gone)))

    def close_task(self, task_id: int, update: ExtractorUpdate | None = None) -> None:
        """Take in the client's update of the extractor, learn from the task, and close it."""
        self._tell("POST", f"tasks/{task_id}/close", messages.Close(update=None if update is None else update.pack()))

    def forget(self, task_id: int) -> bool:
        """Remove a task without any result; whether it was removed."""
        return self._ask(messages.Forgotten, "DELETE", f"tasks/{task_id}").removed

    # -- looking in ----------------------------------------------------------------------------------------------------

    def task(self, task_id: int) -> TaskView:
        """A task as it stands now."""
        return self._ask(messages.TaskMessage, "GET", f"tasks/{task_id}").view()

    def close(self) -> None:
        """Let go of the connections."""
        self._connection.close()

    # -- behind it -----------------------------------------------------------------------------------------------------

    def _ask(self, kind: type[_M], method: str, place: str, message: messages.Message | None = None) -> _M:
        """Send a request, and read its answer."""
        response = self._send(method, place, message)
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise StateError(
                f"platform {self._connection.address}: its answer is not understood ({where}: {first['msg']}); install "
                "the same nni_hyperfd here and there"
            ) from None

    def _tell(self, method: str, place: str, message: messages.Message | None = None, fails: int | None = None) -> None:
        """Send a request that changes something and has no answer.

        Args:
            method: of HTTP.
            place: below ``/v1/``.
            message: its body, or None.
            fails: parameter id of the trial that has failed if this is refused, for a platform that is told later.
        """
        self._connection.tell(method, place, None if message is None else message.model_dump_json())

    def _send(self, method: str, place: str, message: messages.Message | None = None) -> requests.Response:
        return self._connection.send(method, place, None if message is None else message.model_dump_json())
