"""HyperFDTuner: NNI's tuner protocol (ask, result, end, import) turned into calls of the platform. No learning here."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from nni import NoMoreTrialError
from nni.runtime.env_vars import dispatcher_env_vars
from nni.tuner import Tuner

from nni_hyperfd.platform.platform import Platform
from nni_hyperfd.space.search_space import KINDS, SearchSpace, SpaceError
from nni_hyperfd.state.store import default_state
from nni_hyperfd.task import EXTRACT, FINE_TUNE, LEARN, PRESETS, REPLAYS, SEEDS, TaskSettings
from nni_hyperfd.wire import Description, ExtractorUpdate, ReportError, is_finite_number

_logger = logging.getLogger(__name__)

REPLY = "hyperfd"
"""The key under which a service trial's answer stands in its intermediate result."""


WARM_STATE = Path(__file__).parents[1] / "warmup" / "shipped" / "state.sqlite"
"""What `hyperfd warmup` has made for the package; without it the default is to start cold."""


class ClassArgsError(ValueError):
    """An entry of `classArgs` in the experiment's configuration is wrong; the message names it."""


@dataclass(frozen=True)
class Job:
    """What a trial is sent.

    Attributes:
        parameters: what NNI shows and `nni.get_next_parameter` returns: the configuration, and ``phase`` for a service
            trial.
        service: for a service trial what `nni_hyperfd.get_next_parameter` works on; travels beside the parameters, so
            that NNI's web UI does not draw it.
    """

    parameters: dict[str, Any]
    service: dict[str, Any] | None = None


class HyperFDTuner(Tuner):
    """Ranks the configurations of a search space by the experience of all earlier experiments.

    As a plain NNI tuner it cannot hear intermediate results, so no trial is asked for a meta-feature: the ranking is
    the same for all data sets. `nni_hyperfd.HyperFDAdvisor` is the full method. NNI never calls a plain tuner's
    experiment done before `maxTrialNumber`: set it to `budget`.

    Args:
        state: file that keeps the experience (absolute, ``~`` allowed). Default: one in the user's data folder.
        budget: trials per data set, at least 1.
        space: ``"hpo"``, ``"nas"`` or ``"joint"``; found from the search space by default.
        candidates: configurations that are drawn from the space and ranked, at least `budget`.
        replay: what the learn trial is given of other clients' data sets: ``"none"``, or ``"meta-features"``, without
            names and in random order, which the extractor learns to tell this data set from.
        preset: ``"default"`` learns from every result before the next pick; ``"paper"`` ranks once, as the paper does.
        exploration: share of the budget that the paper's preset draws at random instead of from the top of its
            ranking, in [0, 1]; 0.5 by default. The default preset weighs exploration by itself.
        seed: of everything random, from 0 to 2^32 - 1. Same seed, same state, same recommendations.
        optimize_mode: ``"maximize"`` or ``"minimize"`` the trial's ``default`` metric.
        warm_start: what a new `state` begins with: ``"default"``, the package's own warm-up; ``"none"``, nothing; or
            another state (absolute, ``~`` allowed). A state that exists is left as it is.

    Raises:
        ClassArgsError: an argument is unknown or outside its range.
        StateError: the state file is damaged, was written by a newer version, or cannot be written.
    """

    service = False

    def __init__(
        self,
        state: str | None = None,
        budget: int = 4,
        space: str | None = None,
        candidates: int = 200,
        exploration: float | None = None,
        seed: int = 0,
        optimize_mode: str = "maximize",
        preset: str = "default",
        replay: str = "none",
        warm_start: str = "default",
        **unknown: Any,
    ) -> None:
        _check(not unknown, f"{', '.join(unknown)}: no such argument of HyperFD")
        _check(state is None or isinstance(state, str) and bool(state), f"state: {state!r} is no file name")
        path = default_state() if state is None else Path(state).expanduser()
        # NNI runs a tuner inside the experiment's log folder, where nobody would look for a relative path.
        _check(path.is_absolute(), f"state: {state!r} must be an absolute path ('~' is allowed)")
        _check(_is_int(budget) and budget >= 1, f"budget: {budget!r} is no whole number from 1 up")
        _check(space is None or space in KINDS, f"space: {space!r} is none of {', '.join(KINDS)}")
        _check(_is_int(candidates) and candidates >= 1, f"candidates: {candidates!r} is no whole number from 1 up")
        _check(candidates >= budget, f"candidates: {candidates} are fewer than the budget of {budget}")
        _check(preset in PRESETS, f"preset: {preset!r} is none of {', '.join(PRESETS)}")
        _check(replay in REPLAYS, f"replay: {replay!r} is none of {', '.join(REPLAYS)}")
        _check(exploration is None or preset == "paper", "exploration: this belongs to preset: paper; leave it out")
        exploration = TaskSettings.exploration if exploration is None else exploration
        share = is_finite_number(exploration) and 0 <= exploration <= 1
        _check(share, f"exploration: {exploration!r} is not within 0 and 1")
        _check(_is_int(seed) and seed in SEEDS, f"seed: {seed!r} is no whole number from 0 to {SEEDS.stop - 1}")
        modes = ("maximize", "minimize")
        _check(optimize_mode in modes, f"optimize_mode: {optimize_mode!r} is none of {', '.join(modes)}")
        self.settings = TaskSettings(
            budget, candidates, float(exploration), seed, optimize_mode == "maximize", self.service, preset, replay
        )
        # For torch, which is imported when there is something to learn. Where trials of the same machine keep all cores
        # busy, our small networks learn many times slower on two threads than on one.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        self.platform = Platform(path, _warm_start(warm_start))
        self.task_id: int | None = None
        self._kind = space
        self._warned = False

    # -- NNI's protocol ------------------------------------------------------------------------------------------------

    def update_search_space(self, search_space: dict[str, Any]) -> None:
        """Open this experiment's task, or go on with it. A later change of the search space is refused."""
        space = SearchSpace.from_nni(search_space, self._kind)
        self.task_id = self.platform.open_task(experiment_id(), space, self.settings)

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        job = self.ask(parameter_id)
        if job is None:
            raise NoMoreTrialError(f"the budget of {self.settings.budget} trials is spent")
        return job.parameters

    def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any, **kwargs: Any) -> None:
        if isinstance(value, dict) and value.get("phase") in (EXTRACT, LEARN):
            return  # the answer itself came as an intermediate result
        number = value.get("default") if isinstance(value, dict) else value
        if is_finite_number(number):
            self.platform.observe(self.task_id, parameter_id, float(number))
        else:
            self._fail(parameter_id, f"reported {number!r} instead of a finite number")
        self.platform.settle(self.task_id)

    def trial_end(self, parameter_id: int, success: bool, **kwargs: Any) -> None:
        trial = self._running(parameter_id)
        if trial is not None:
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
            parameters, value = dict(entry["parameter"]), entry.get("value")
            phase = parameters.pop("phase", FINE_TUNE)
            if isinstance(value, dict) and value.get("phase") in (EXTRACT, LEARN):
                continue
            number = value.get("default") if isinstance(value, dict) else value
            if not is_finite_number(number):
                _logger.warning("Imported trial %s is left out: its value %r is no finite number.", parameters, number)
                continue
            try:
                self.platform.add_experience(self.task_id, parameters, float(number), phase)
            except SpaceError as error:
                _logger.warning("Imported trial %s is left out: %s.", parameters, error)
        self.platform.settle(self.task_id)

    # -- behind it -----------------------------------------------------------------------------------------------------

    def ask(self, parameter_id: int) -> Job | None:
        """The next trial under NNI's `parameter_id`; None while there is none to run yet, or any more."""
        trial = self.platform.next_trial(self.task_id)
        if trial is None:
            return None
        if trial.phase == FINE_TUNE and not self._warned and self.platform.task(self.task_id).meta_feature is None:
            self._warned = True
            _logger.warning(
                "This task is ranked without a meta-feature: no trial described the data set. In the trial, call "
                "nni_hyperfd.get_next_parameter(dataset), and use nni_hyperfd.HyperFDAdvisor."
            )
        self.platform.start(trial.id, parameter_id)
        if trial.phase == FINE_TUNE:
            return Job(trial.configuration)
        data = self._weights_for(trial.phase)
        service = {"phase": trial.phase, "weights": None}
        if data is not None:
            from nni_hyperfd.method import weights

            service |= {"weights": weights.to_text(data), "sha256": weights.sha256(data)}
            if trial.phase == EXTRACT and self.platform.may_start_anew():
                service["may_start_anew"] = True
        return Job({"phase": trial.phase, **trial.configuration}, service)

    def _weights_for(self, phase: str) -> bytes | None:
        platform = self.platform
        return platform.learn_job(self.task_id) if phase == LEARN else platform.extractor_weights(self.task_id)

    def _running(self, parameter_id: int) -> Any:
        trials = self.platform.task(self.task_id).trials
        return next((t for t in trials if t.parameter_id == parameter_id and t.status == "running"), None)

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

    def next_parameter_id(self) -> int:
        """A parameter id that no trial of this task has had, also after a resume."""
        trials = self.platform.task(self.task_id).trials
        return 1 + max((t.parameter_id for t in trials if t.parameter_id is not None), default=-1)

    def receive_intermediate(self, parameter_id: int, value: Any) -> None:
        """Take the answer of a service trial out of an intermediate result; others carry none."""
        if not isinstance(value, dict) or REPLY not in value:
            return
        trial = self._running(parameter_id)
        if trial is None or trial.phase == FINE_TUNE:
            return
        try:
            self._receive_answer(trial.phase, parameter_id, value[REPLY])
        except ReportError as error:
            self._fail(parameter_id, str(error))
        self.platform.settle(self.task_id)

    def prepare(self) -> None:
        """Load what ranking needs (torch takes seconds) and learn from the past."""
        self.platform.prepare(self.task_id)

    def release(self, still_running: set[int]) -> None:
        """After a resume: plan anew what NNI does not run again."""
        self.platform.release(self.task_id, still_running)

    def _receive_answer(self, phase: str, parameter_id: int, answer: Any) -> None:
        if phase == EXTRACT:
            self.platform.describe(self.task_id, parameter_id, Description.from_report(answer))
        else:
            self.platform.close_task(self.task_id, ExtractorUpdate.from_report(answer))


def experiment_id() -> str:
    """The NNI experiment that this dispatcher serves, from its log folder <experiments>/<id>/log."""
    folder = dispatcher_env_vars.NNI_LOG_DIRECTORY
    return Path(folder).parent.name if folder else f"standalone-{uuid4()}"


def _warm_start(value: Any) -> Path | None:
    """The state that a new one begins with."""
    if value == "none":
        return None
    if value == "default":
        return WARM_STATE
    _check(
        isinstance(value, str) and bool(value), f"warm_start: {value!r} is neither 'default', 'none' nor a file name"
    )
    path = Path(value).expanduser()
    _check(path.is_absolute(), f"warm_start: {value!r} must be 'default', 'none' or an absolute path ('~' is allowed)")
    _check(path.is_file(), f"warm_start: there is no file {path}")
    return path


def _check(valid: bool, message: str) -> None:
    if not valid:
        raise ClassArgsError(f"classArgs: {message}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
