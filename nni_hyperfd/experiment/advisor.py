"""HyperFDAdvisor: the NNI side. It connects first and loads later, counts credit, and reports its own errors."""

from __future__ import annotations

import json
import logging
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nni
from nni.runtime.env_vars import dispatcher_env_vars
from nni.runtime.msg_dispatcher_base import MsgDispatcherBase
from nni.runtime.tuner_command_channel import CommandType
from nni.utils import MetricType

from nni_hyperfd.experiment import trial_logs
from nni_hyperfd.experiment.manager import Manager
from nni_hyperfd.task import Preset, TaskSettings
from nni_hyperfd.wire import load_json

if TYPE_CHECKING:
    from nni_hyperfd.experiment.tuner import ServiceTuner

_logger = logging.getLogger(__name__)


_LOOK_AGAIN = object()
"""A command of our own beside NNI's: see whether a platform that was away is back."""


class TrialsError(RuntimeError):
    """Trials fail in a way that makes the experiment pointless; the message has a trial's own sentence."""


class HyperFDAdvisor(MsgDispatcherBase):
    """Recommends configurations for the data set of an NNI experiment, and learns from every experiment.

    In the experiment's configuration::

        tuner:
          codeDirectory: .
          className: nni_hyperfd.HyperFDAdvisor
          classArgs: {budget: 4}

    `classArgs` are those of `nni_hyperfd.HyperFDTuner`. Wrong ones, a search space that cannot be ranked and a damaged
    state end the experiment at its start: ``nnictl experiment status`` and the web UI show the reason. So do a failed
    trial that was to describe the data set, and an experiment of which every trial has failed; neither leaves a task in
    the state.
    """

    def __init__(self, **class_args: Any) -> None:
        # Connects to the manager, which waits ten seconds for it and no longer; everything else is loaded when the
        # manager's first command arrives, because only then is it ready to hear of an error.
        super().__init__()
        self._class_args = class_args
        self._manager = Manager(dispatcher_env_vars.NNI_TUNER_COMMAND_CHANNEL)
        self._tuner: ServiceTuner
        self._credit = 0
        self._next_parameter_id = 0
        self._finished = False
        self._failed_trial: str | None = None  # NNI's id of the last one
        self._timer: threading.Timer | None = None

    def enqueue_command(self, command: Any, data: Any) -> None:
        """Queue a command of the manager, or our own."""
        # The base class has two queues, each with its thread, so that a trial's end may overtake its result. One queue
        # keeps the manager's order and needs no locks.
        self.default_command_queue.put((command, data))

    def process_command(self, command: Any, data: Any) -> None:
        """Carry out a command; an exception ends the experiment with its cause."""
        try:
            if command is _LOOK_AGAIN:
                self._timer = None
                self._flush()
            else:
                super().process_command(command, data)
        except Exception as error:
            # Without this the experiment would stay RUNNING for ever, and only the dispatcher's log would know why.
            cause = "" if isinstance(error, TrialsError) else f"stopped with {type(error).__name__}: "
            try:
                self._manager.fail(f"HyperFD {cause}{error}")
            except OSError:
                self.report_error(traceback.format_exc())  # ends it too, but NNI keeps the text for its log
            raise

    def handle_initialize(self, data: dict[str, Any]) -> None:
        """Load the state and open the task."""
        self._tuner = self._load_tuner()
        self._tuner.update_search_space(data)
        self._next_parameter_id = self._tuner.next_parameter_id()
        self.send(CommandType.Initialized, "")

    def handle_request_trial_jobs(self, data: int) -> None:
        """NNI has room for so many more trials."""
        self._credit += data
        self._flush()
        self._tuner.prepare()  # the first trial is on its way; the ranking that follows it need not wait

    def handle_update_search_space(self, data: dict[str, Any]) -> None:
        """Refuse another search space."""
        _logger.warning("HyperFD ranks one search space per experiment; the update of the search space is ignored.")

    def handle_import_data(self, data: list[dict[str, Any]]) -> None:
        """Take in results of a resumed experiment, or ones that the user imports."""
        # A value may come as JSON in a string: that is what 'nnictl experiment export' writes.
        entries = [e | {"value": load_json(e["value"])} if isinstance(e, dict) and "value" in e else e for e in data]
        self._tuner.import_data(entries)
        self._flush()

    def handle_add_customized_trial(self, data: list[dict[str, Any]]) -> None:
        """On resume NNI names the trials that it runs again; the manager sends this once, after the imported data."""
        self._tuner.release({trial["parameter_id"] for trial in data})

    def handle_report_metric_data(self, data: dict[str, Any]) -> None:
        """A trial has reported an intermediate or final result."""
        value = load_json(data["value"])
        if data["type"] == MetricType.PERIODICAL:
            self._tuner.receive_intermediate(data["parameter_id"], value)
        elif data["type"] == MetricType.FINAL:
            self._tuner.receive_trial_result(data["parameter_id"], None, value)
        self._flush()

    def handle_trial_end(self, data: dict[str, Any]) -> None:
        """A trial has ended."""
        parameter_id = json.loads(data["hyper_params"])["parameter_id"]
        describing, succeeded = self._tuner.is_describing(parameter_id), data["event"] == "SUCCEEDED"
        self._tuner.trial_end(parameter_id, succeeded)
        if not succeeded:
            # NNI 3.0 also calls a trial that ran out of memory USER_CANCELED, so the word says little.
            self._failed_trial = data["trial_job_id"]
            if describing:
                self._give_up("stopped: the trial that describes the data set has failed")
        self._flush()

    def _load_tuner(self) -> ServiceTuner:
        from nni_hyperfd.experiment.tuner import ServiceTuner

        tuner = ServiceTuner(**self._class_args)
        self._check_max_trial_number(tuner.settings)
        return tuner

    def _flush(self) -> None:
        """Send every trial that is due, as far as NNI has asked for trials; end the experiment after the last."""
        while self._credit and (request := self._tuner.ask(self._next_parameter_id)) is not None:
            self.send(CommandType.NewTrialJob, nni.dump(request.record(self._next_parameter_id)))
            self._next_parameter_id += 1
            self._credit -= 1
        if not self._finished and self._tuner.done:
            self._finished = True
            if not self._tuner.has_results and self._failed_trial is not None:
                self._give_up("has no result: all trials that tried a configuration have failed, the last one")
            # NNI calls an experiment done when maxTrialNumber trials have ended; it has no other word for it.
            self._manager.set_max_trial_number(self._manager.submitted_trials())
        if (pause := self._tuner.away) is not None and self._timer is None:
            # NNI may have nothing to say for hours. One thread and one queue do all the work, and never wait.
            self._timer = threading.Timer(pause, self.enqueue_command, (_LOOK_AGAIN, None))
            self._timer.daemon = True
            self._timer.start()

    def _give_up(self, what: str) -> None:
        """End the experiment for the reason that its last failed trial gives, without a trace of it in the state."""
        self._tuner.forget()
        log_folder = dispatcher_env_vars.NNI_LOG_DIRECTORY
        assert log_folder is not None and self._failed_trial is not None
        raise TrialsError(f"{what}: {trial_logs.reason_of(Path(log_folder).parent, self._failed_trial)}")

    def _check_max_trial_number(self, settings: TaskSettings) -> None:
        from nni_hyperfd.experiment.class_args import ClassArgsError

        limit, learns = self._manager.experiment()["params"].get("maxTrialNumber"), settings.preset is Preset.PAPER
        needed = settings.budget + 1 + learns
        if limit is not None and limit < needed:
            beside = "one describes the data set first" + " and one may learn from the results" * learns
            raise ClassArgsError(
                f"maxTrialNumber is {limit}, but a budget of {settings.budget} needs {needed} trials: {beside}; raise "
                "maxTrialNumber or leave it out"
            )
