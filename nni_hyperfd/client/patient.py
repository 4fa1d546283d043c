"""A platform behind a server that may be away for a while: what it has to hear is kept, and told when it is back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from nni_hyperfd.client import foreseen
from nni_hyperfd.client.connection import token_of
from nni_hyperfd.client.outbox import Call, Outbox
from nni_hyperfd.client.remote import RemotePlatform
from nni_hyperfd.platform import (
    AwayError,
    HeldError,
    QuotaError,
    Recommendation,
    RefusedError,
    StateError,
    TaskView,
    TokenError,
    TrialView,
    messages,
    planning,
)
from nni_hyperfd.space import Configuration, SearchSpace, SpaceError
from nni_hyperfd.task import RESULT_PHASES, Phase, SettingsError, Status, TaskSettings
from nni_hyperfd.wire import Description, ExtractorUpdate, Job, WireError

_logger = logging.getLogger(__name__)

T = TypeVar("T")

_START_SECONDS = 300.0
_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_ASKED_FOR = 0.5, 60.0, 600.0
_RETRIES = 2

_LATER = (StateError, TokenError, QuotaError)
"""Errors that end by themselves, or by what an operator does: what was to be told is kept."""
_FOR_GOOD = (RefusedError, SettingsError, SpaceError, WireError)


class PatientPlatform(RemotePlatform):
    """A platform that a server shares, for one experiment, whose trials go on while the server is away.

    What changes something is on this machine's disk before the method returns. It is sent in order, and removed when
    the server has acknowledged or refused it. While the server is away, `task` is what it will be once the server has
    heard of all that is kept, and `next_trial` has none, or one from the last ranking that the server gave. Such a
    trial has a negative id. Every method looks whether the server is back when it is time to (`away`).

    Args:
        address: the server, such as ``https://hyperfd.example.org``.
        token_file: file with the token, read before every request; the environment variable HYPERFD_TOKEN goes first.
        ca_file: certificates that the server's is checked against, in place of the system's.
        continues: whether `next_trial` takes the last ranking while the server is away.
        start_seconds: for which a server that is away at the start is waited for.

    Raises:
        HeldError: from any method, when a newer process has opened the task.
        StateError: from `open_task`, when the server is still away; from others when the disk fails.
        TokenError: from `open_task`, when the server does not accept the token.
    """

    def __init__(
        self,
        address: str,
        token_file: Path | None = None,
        ca_file: Path | None = None,
        continues: bool = False,
        start_seconds: float = _START_SECONDS,
    ) -> None:
        super().__init__(address, lambda: token_of(token_file), ca_file, _RETRIES)
        self._continues, self._start_seconds = continues, start_seconds
        self._lock = threading.RLock()  # a plain tuner of NNI is called by two threads
        self._outbox: Outbox
        self._task: TaskView
        self._next: TrialView | None = None
        self._ranking: list[Recommendation] = []
        self._again: float | None = None  # when the server is worth another attempt; None while it answers
        self._pause = _FIRST_PAUSE

    # -- the way of one task -------------------------------------------------------------------------------------------

    def open_task(self, experiment: str, space: SearchSpace, settings: TaskSettings) -> int:
        """Begin the task of an experiment, or go on with it: first with what an earlier process could not send."""
        deadline = time.monotonic() + self._start_seconds
        self._outbox = Outbox.of(experiment)
        while True:
            try:
                task_id = super().open_task(experiment, space, settings)
                if kept := len(self._outbox):
                    _logger.warning(
                        "An earlier process of this experiment has left %d calls, which are sent now.", kept
                    )
                self._deliver()
                self._task = super().task(task_id)
                self._came_back()
                return task_id
            except AwayError as error:
                if time.monotonic() > deadline:
                    raise StateError(f"{error}; it was waited for {self._start_seconds:g} s") from None
                self._went_away(error)
                time.sleep(min(self.away or 0.0, max(0.0, deadline - time.monotonic())))

    def next_trial(self, task_id: int) -> TrialView | None:
        """The next trial; while the server is away none, or one from its last ranking."""
        with self._lock:
            self._next = self._asked(lambda: self._planned(task_id), self._own_pick)
            return self._next

    def start(self, trial_id: int, parameter_id: int) -> None:
        """Note that the trial of `next_trial` was handed out under NNI's parameter id."""
        with self._lock:
            trial = self._next if self._next is not None and self._next.id == trial_id else None
            if trial_id < 0 and trial is not None:
                super().take(self._task.id, parameter_id, trial.configuration, trial.rank)
            else:
                super().start(trial_id, parameter_id)
            if trial is not None:
                self._task = foreseen.started(self._task, trial, parameter_id)

    def job(self, task_id: int, phase: Phase) -> Job | None:
        """What a service trial of the task is to do; None for a phase whose trials try a configuration.

        Raises:
            AwayError: the server is away.
        """

        def away() -> Job | None:
            raise AwayError("the platform is away, and only it knows the job")

        if phase in RESULT_PHASES:
            return None
        with self._lock:
            return self._asked(lambda: super(PatientPlatform, self).job(task_id, phase), away)

    def describe(self, task_id: int, parameter_id: int, description: Description) -> None:
        """Keep what the extract trial found out, which ends that phase."""
        with self._lock:
            super().describe(task_id, parameter_id, description)
            self._task = foreseen.described(self._task, parameter_id, description)

    def observe(self, task_id: int, parameter_id: int, performance: float | None, reason: str | None = None) -> None:
        """Keep a trial's performance, or None for a failed one."""
        with self._lock:
            super().observe(task_id, parameter_id, performance, reason)
            self._task = foreseen.observed(self._task, parameter_id, performance, reason)

    def add_experience(
        self, task_id: int, configuration: Configuration, performance: float, phase: Phase = Phase.FINE_TUNE
    ) -> None:
        """Keep a result that comes with its configuration only."""
        configuration = self._task.space.canonical(configuration)
        with self._lock:
            super().add_experience(task_id, configuration, performance, phase)
            self._task = foreseen.with_experience(self._task, configuration, performance, phase)

    def prepare(self, task_id: int) -> None:
        """Learn now what the task's first pick will need, if the server is there."""
        with self._lock:
            self._asked(lambda: self._connection.tell("POST", f"tasks/{task_id}/prepare"), lambda: None)

    def release(self, task_id: int, gone: set[tuple[int, int | None]]) -> None:
        """Plan running trials anew, which NNI does not run again after a resume."""
        with self._lock:
            super().release(task_id, gone)
            self._task = foreseen.released(self._task, gone)

    def close_task(self, task_id: int, update: ExtractorUpdate | None = None) -> None:
        """Take in the client's update of the extractor, learn from the task, and close it."""
        with self._lock:
            learning = (t for t in self._task.trials if t.phase is Phase.LEARN and t.status is Status.RUNNING)
            fails = next((trial.parameter_id for trial in learning), None)
            said = messages.Close(update=None if update is None else update.pack())
            self._tell("POST", f"tasks/{task_id}/close", said, fails)
            self._task = foreseen.learned(self._task)

    def forget(self, task_id: int) -> bool:
        """Remove a task without any result, if the server is there; whether it was removed."""
        with self._lock:
            return self._asked(lambda: super(PatientPlatform, self).forget(task_id), lambda: False)

    # -- looking in ----------------------------------------------------------------------------------------------------

    def task(self, task_id: int) -> TaskView:
        """A task as it stands now, or will stand when the server has heard of all that is kept."""
        with self._lock:
            self._task = self._asked(lambda: super(PatientPlatform, self).task(task_id), lambda: self._task)
            if self._task.closed is not None and not self._outbox:
                self._outbox.discard()
            return self._task

    @property
    def away(self) -> float | None:
        """Seconds until a server that is away is worth another attempt; None while it answers."""
        return None if self._again is None else max(0.0, self._again - time.monotonic())

    def close(self) -> None:
        """Let go of the connections and of the outbox, which keeps what it holds."""
        super().close()
        self._outbox.close()

    # -- behind it -----------------------------------------------------------------------------------------------------

    def _planned(self, task_id: int) -> TrialView | None:
        """The server's next trial; with it comes what there is to pick from without the server."""
        trial = super().next_trial(task_id)
        if self._continues and trial is not None and trial.tries:
            with suppress(*_LATER):  # then the ranking before it will do
                self._ranking = super().ranking(task_id)
        return trial

    def _own_pick(self) -> TrialView | None:
        """While the server is away: a pick that it had planned, or the best of its last ranking that was not tried."""
        task = self._task
        describing = any(t.phase is Phase.EXTRACT and t.status is Status.RUNNING for t in task.trials)
        if not self._continues or describing or task.closed is not None:
            return None
        planned = [t for t in task.trials if t.status is Status.PLANNED]
        if planned:
            return planned[0] if planned[0].tries else None
        untried = planning.untried(task, [one.configuration for one in self._ranking])
        if not untried or not planning.picks_left(task):
            return None
        rank = next(one.rank for one in self._ranking if one.configuration == untried[0])
        return foreseen.new_trial(task, Phase.FINE_TUNE, untried[0], rank)

    def _asked(self, ask: Callable[[], T], otherwise: Callable[[], T]) -> T:
        """What the server answers once it has heard of all that is kept; while it is away, something else."""
        try:
            if not self._is_away():
                self._deliver()
                answer = ask()
                self._came_back()
                return answer
        except _LATER as error:
            self._went_away(error)
        return otherwise()

    def _tell(self, method: str, place: str, message: messages.Message | None = None, fails: int | None = None) -> None:
        """Keep a call until the server has heard of it, and send it now if the server is there."""
        with self._lock:
            body = None if message is None else message.model_dump_json()
            number = self._outbox.add(Call(method, place, body, fails))
            if self._is_away():
                return
            try:
                self._deliver(number)
                self._came_back()
            except _LATER as error:
                self._went_away(error)

    def _deliver(self, own: int | None = None) -> None:
        """Send what is kept, in order. What the server refuses is taken out, and said.

        Args:
            own: the call whose refusal is its caller's matter.
        """
        while (found := self._outbox.first()) is not None:
            number, call = found
            try:
                self._connection.tell(call.method, call.place, call.body)
            except (HeldError, *_LATER):
                raise  # of a task that another process has taken over, it sends what is kept
            except _FOR_GOOD as error:
                self._outbox.replace(number, None if number == own else _failure(self._task.id, call, error))
                if number == own:
                    raise
                _logger.error("The platform refuses what it was told late (%s %s): %s", call.method, call.place, error)
            else:
                self._outbox.replace(number, None)

    def _is_away(self) -> bool:
        """Whether it is not worth an attempt yet."""
        return self._again is not None and time.monotonic() < self._again

    def _went_away(self, error: Exception) -> None:
        if self._again is None:
            _logger.warning(
                "The platform is away (%s). Running trials go on, results are kept in %s, and until it is back %s.",
                error,
                self._outbox.file,
                "trials are picked from its last ranking" if self._continues else "no trial starts",
            )
        else:
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        asked_for = min(error.seconds or 0.0, _LONGEST_ASKED_FOR) if isinstance(error, AwayError) else 0.0
        self._again = time.monotonic() + max(self._pause, asked_for)

    def _came_back(self) -> None:
        if self._again is not None:
            _logger.warning("The platform is back, and has heard of all that was kept.")
        self._again, self._pause = None, _FIRST_PAUSE


def _failure(task_id: int, call: Call, error: Exception) -> Call | None:
    """What is to be told in place of a call that was refused: that its trial has failed."""
    if call.fails is None:
        return None
    result = messages.Result(performance=None, reason=str(error)[:2000])
    return Call("PUT", f"tasks/{task_id}/results/{call.fails}", result.model_dump_json())
