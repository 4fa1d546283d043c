"""HyperFDTuner: NNI's tuner protocol (ask, result, end, import) turned into calls of the platform. No learning here."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from nni import NoMoreTrialError
from nni.runtime.env_vars import dispatcher_env_vars
from nni.tuner import Tuner

from nni_hyperfd import wire
from nni_hyperfd.client import PatientPlatform
from nni_hyperfd.experiment.class_args import ClassArgs, ClassArgsError
from nni_hyperfd.platform import AwayError, EmbeddedPlatform, PlatformClient, RefusedError
from nni_hyperfd.space import Configuration, SearchSpace, SpaceError
from nni_hyperfd.task import Phase, Status
from nni_hyperfd.wire import Description, ExtractorUpdate, WireError

__all__ = ["ClassArgsError", "HyperFDTuner", "ServiceTuner", "TrialRequest", "experiment_id"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialRequest:
    """A trial that NNI is to run.

    Attributes:
        configuration: what it tries, or would try if it did not know its job.
        job: what a service trial is to do; None for a trial that tries its configuration.
        note: what NNI's web UI is to say of it, or None.
    """

    configuration: Configuration
    job: wire.Job | None = None
    note: str | None = None

    def record(self, parameter_id: int) -> dict[str, Any]:
        """What NNI is told, under its id of the trial's parameters."""
        return wire.trial_record(parameter_id, self.configuration, self.job, self.note)


class HyperFDTuner(Tuner):
    """Ranks the configurations of a search space by the experience of all earlier experiments.

    As a plain NNI tuner it cannot hear intermediate results, so no trial is asked for a meta-feature: the ranking is
    the same for all data sets. `nni_hyperfd.HyperFDAdvisor` is the full method. NNI never calls a plain tuner's
    experiment done before `maxTrialNumber`: set it to `budget`.

    Args:
        state: file that keeps the experience (absolute, ``~`` allowed). Default: one in the user's data folder.
        budget: trials per data set, at least 1; 4 by default.
        space: ``"hpo"``, ``"nas"`` or ``"joint"``; found from the search space by default.
        candidates: configurations that are drawn from the space and ranked, at least `budget`; 200 by default.
        replay: what the learn trial is given of other clients' data sets: ``"none"``, or ``"meta-features"``, without
            names and in random order, which the extractor learns to tell this data set from.
        preset: ``"default"`` learns from every result before the next pick; ``"paper"`` ranks once, as the paper does.
        exploration: share of the budget that the paper's preset draws at random instead of from the top of its
            ranking, in [0, 1]; 0.5 by default. The default preset weighs exploration by itself.
        seed: of everything random, from 0 to 2^32 - 1; 0 by default. Same seed, same state, same recommendations.
        optimize_mode: ``"maximize"`` (the default) or ``"minimize"`` the trial's ``default`` metric.
        warm_start: what a new `state` begins with: ``"default"``, the package's own warm-up; ``"none"``, nothing; or
            another state (absolute, ``~`` allowed). A state that exists is left as it is, but for an extractor that an
            upgrade has dropped.
        platform: address of a server that shares its state with other data owners (``https://...``; ``http://`` on this
            machine only), in place of `state` and `warm_start` (docs/guides/shared-platform.md).
        token_file: file with the token for the server (absolute, ``~`` allowed), which nobody else may read. The
            environment variable HYPERFD_TOKEN goes first.
        ca_file: file with the certificates that the server's is checked against (absolute, ``~`` allowed); those of the
            system by default.
        when_away: while the server is away, ``"wait"`` (the default) starts no trial; ``"continue"`` picks from the
            last ranking that it gave. Trials that run go on, and their results are kept on this machine's disk.

    Raises:
        ClassArgsError: an argument is unknown or outside its range.
        StateError: the state file is damaged, was written by a newer version, or cannot be written; or the server is
            away at the start.
    """

    service = False

    def __init__(self, **class_args: Any) -> None:
        arguments = ClassArgs.of(self.service, class_args)
        self.settings = arguments.settings
        # For torch, which is imported when there is something to learn. Where trials of the same machine keep all cores
        # busy, our small networks learn many times slower on two threads than on one.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        self.platform = _platform(arguments)
        self.task_id = -1
        """Of the experiment's task, once there is a search space."""
        self._kind = arguments.space
        self._warned = False

    # -- NNI's protocol ------------------------------------------------------------------------------------------------

    def update_search_space(self, search_space: dict[str, Any]) -> None:
        """Open this experiment's task, or go on with it. A later change of the search space is refused."""
        space = SearchSpace.from_nni(search_space, self._kind)
        self.task_id = self.platform.open_task(experiment_id(), space, self.settings)

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> Configuration:
        """The next configuration to try."""
        while (request := self.ask(parameter_id)) is None:
            pause = self.platform.away
            if pause is None:
                raise NoMoreTrialError(f"the budget of {self.settings.budget} trials is spent")
            time.sleep(pause)
        return request.configuration

    def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any, **kwargs: Any) -> None:
        """Keep a trial's final result."""
        if wire.is_service_result(value):
            return  # the answer itself came as an intermediate result
        number = wire.final_number(value)
        if number is None:
            self._fail(parameter_id, f"reported {_short(value)} instead of a finite number")
        else:
            self.platform.observe(self.task_id, parameter_id, number)
        self.platform.settle(self.task_id)

    def trial_end(self, parameter_id: int, success: bool, **kwargs: Any) -> None:
        """Note that a trial has ended; one without a result has failed."""
        if self.platform.task(self.task_id).running(parameter_id) is not None:
            self._fail(parameter_id, "ended without reporting a result" if success else "failed")
            self.platform.settle(self.task_id)

    def import_data(self, data: list[dict[str, Any]]) -> None:
        """Take in results of a resumed experiment, or ones that the user imports: a list of parameter and value.

        An entry that is not usable is left out with a warning; the others are kept.
        """
        for entry in data:
            if not isinstance(entry, dict) or not isinstance(entry.get("parameter"), dict):
                _logger.warning("Imported entry %r is left out: it has no 'parameter' that is a JSON object.", entry)
                continue
            value = entry.get("value")
            if wire.is_service_result(value):
                continue
            configuration = wire.parameters_in({"parameters": entry["parameter"]})
            number = wire.final_number(value)
            if number is None:
                message = "Imported trial %s is left out: its value %s is no finite number."
                _logger.warning(message, configuration, _short(value))
                continue
            phase = wire.phase_of(entry["parameter"])
            try:
                self.platform.add_experience(self.task_id, configuration, number, phase)
            except SpaceError as error:
                _logger.warning("Imported trial %s is left out: %s.", configuration, error)
        self.platform.settle(self.task_id)

    # -- behind it -----------------------------------------------------------------------------------------------------

    def ask(self, parameter_id: int) -> TrialRequest | None:
        """The next trial under NNI's `parameter_id`; None while there is none to run yet, or any more."""
        trial = self.platform.next_trial(self.task_id)
        if trial is None:
            return None
        if trial.phase is Phase.FINE_TUNE and not self._warned:
            self._warn_without_meta_feature()
        try:
            job = self.platform.job(self.task_id, trial.phase)
        except AwayError:
            return None
        self.platform.start(trial.id, parameter_id)
        return TrialRequest(trial.configuration, job, wire.WITHOUT_PLATFORM if trial.id < 0 else None)

    def _warn_without_meta_feature(self) -> None:
        task = self.platform.task(self.task_id)
        if task.meta_feature is None and task.baseline is None:  # with a baseline the owner has withheld it on purpose
            self._warned = True
            _logger.warning(
                "This task is ranked without a meta-feature: no trial described the data set. In the trial, call "
                "nni_hyperfd.get_next_parameter(dataset), and use nni_hyperfd.HyperFDAdvisor."
            )

    def _fail(self, parameter_id: int, reason: str) -> None:
        _logger.warning("Trial with parameter id %s: %s.", parameter_id, reason)
        self.platform.observe(self.task_id, parameter_id, None, reason)


class ServiceTuner(HyperFDTuner):
    """The tuner inside `nni_hyperfd.HyperFDAdvisor`, which can hear what `extract` and `learn` trials answer."""

    service = True

    @property
    def done(self) -> bool:
        """Whether the budget is spent and everything learned from it."""
        return self.platform.task(self.task_id).closed is not None

    @property
    def has_results(self) -> bool:
        """Whether any trial has told how good a configuration is."""
        return self.platform.task(self.task_id).best is not None

    def is_describing(self, parameter_id: int) -> bool:
        """Whether this is the running trial that describes the data set, and has not done so yet."""
        trial = self.platform.task(self.task_id).running(parameter_id)
        return trial is not None and trial.phase is Phase.EXTRACT

    @property
    def away(self) -> float | None:
        """Seconds until a platform that cannot be reached is worth another attempt; None for one that can."""
        return self.platform.away

    def forget(self) -> None:
        """Take the experiment's task out of the state, unless it has results."""
        self.platform.forget(self.task_id)

    def next_parameter_id(self) -> int:
        """A parameter id that no trial of this task has had, also after a resume."""
        trials = self.platform.task(self.task_id).trials
        return 1 + max((t.parameter_id for t in trials if t.parameter_id is not None), default=-1)

    def receive_intermediate(self, parameter_id: int, value: Any) -> None:
        """Take the answer of a service trial out of an intermediate result; others carry none."""
        message = wire.answer_in(value)
        if message is None:
            return
        trial = self.platform.task(self.task_id).running(parameter_id)
        if trial is None or trial.tries:
            return
        try:
            if trial.phase is Phase.EXTRACT:
                self.platform.describe(self.task_id, parameter_id, Description.unpack(message))
            else:
                self.platform.close_task(self.task_id, ExtractorUpdate.unpack(message))
        except (WireError, RefusedError) as error:
            self._fail(parameter_id, str(error))
        self.platform.settle(self.task_id)

    def prepare(self) -> None:
        """Load what ranking needs (torch takes seconds) and learn from the past."""
        self.platform.prepare(self.task_id)

    def release(self, still_running: set[int]) -> None:
        """After a resume: plan anew what NNI does not run again."""
        running = [t for t in self.platform.task(self.task_id).trials if t.status is Status.RUNNING]
        if gone := {(t.id, t.parameter_id) for t in running if t.parameter_id not in still_running}:
            self.platform.release(self.task_id, gone)


def _platform(arguments: ClassArgs) -> PlatformClient:
    """The platform that `classArgs` name."""
    server = arguments.server
    if server is None:
        return EmbeddedPlatform(arguments.state, arguments.warm_start)
    return PatientPlatform(server.address, server.token_file, server.ca_file, server.continues)


def experiment_id() -> str:
    """The NNI experiment that this dispatcher serves, from its log folder <experiments>/<id>/log."""
    folder = dispatcher_env_vars.NNI_LOG_DIRECTORY
    return Path(folder).parent.name if folder else f"standalone-{uuid4()}"


def _short(value: Any) -> str:
    """A value for a message, which it may otherwise fill."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
