"""Running a plan through NNI, until the experiment has ended or the user stops it; the same call goes on."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nni_hyperfd import files
from nni_hyperfd.experiment import launch, trial_logs
from nni_hyperfd.experiment.launch import LaunchError, RunningExperiment
from nni_hyperfd.tuning import plan as planning
from nni_hyperfd.tuning.data_set import DataSet, Say
from nni_hyperfd.tuning.errors import TuningError
from nni_hyperfd.tuning.plan import Plan
from nni_hyperfd.tuning.progress import Progress, of_trials

if TYPE_CHECKING:
    from nni.experiment import ExperimentConfig

EXPERIMENT = "experiment.yml"
"""Name of the experiment file in the folder of results."""
_RECORD, _SETTINGS, _LOCK = "tune.json", "settings.json", "lock"
_USUAL_PORT = 8080
_GOES_ON = ("RUNNING", "NO_MORE_TRIAL")
_POLL_SECONDS = 1.0


class NothingCameOutError(TuningError):
    """The experiment has ended with an error before any result; there is nothing to go on with."""


@dataclass(frozen=True)
class Record:
    """The NNI experiment of a folder of results.

    Attributes:
        experiment: NNI's id of it; "" before there is one.
        port: of its web UI, while it runs.
        done: whether it has ended with results.
    """

    experiment: str = ""
    port: int = 0
    done: bool = False

    @classmethod
    def read(cls, out: Path) -> Record:
        """The record in a folder of results, empty in a new one."""
        path = out / _RECORD
        return cls(**json.loads(path.read_text())) if path.is_file() else cls()

    def write(self, out: Path) -> None:
        """Keep the record in a folder of results."""
        files.write_json(out / _RECORD, asdict(self))

    def folder(self, out: Path) -> Path:
        """NNI's folder of the experiment."""
        return working_directory(out) / self.experiment


def working_directory(out: Path) -> Path:
    """Where NNI keeps the experiments of a folder of results."""
    return out.resolve() / "experiments"


@contextmanager
def workplace(out: Path) -> Iterator[None]:
    """Hold a folder of results; one in which nothing was made is removed again if the block fails.

    Raises:
        FolderError: another process holds it.
        TuningError: it holds something else.
    """
    if out.exists() and not out.is_dir():
        raise TuningError(f"{out}: this is a file; name a new folder with --out")
    foreign = out.is_dir() and any(out.iterdir()) and not any((out / n).exists() for n in (_LOCK, _SETTINGS, _RECORD))
    if foreign:
        raise TuningError(f"{out}: it is not empty, and not of this command; name a new folder with --out")
    with files.locked(out):
        try:
            yield
        except BaseException:
            if {path.name for path in out.iterdir()} <= {_LOCK}:
                shutil.rmtree(out)
            raise


def run(
    plan: Plan,
    data: DataSet,
    out: Path,
    port: int | None,
    say: Say,
    show: Callable[[str], None],
) -> tuple[Record, Progress | None]:
    """Run an experiment to its end; NNI is stopped whatever happens.

    Args:
        plan: what is to be run.
        data: on which data set.
        out: the folder of results, which the caller holds; an experiment that was begun in it goes on.
        port: of NNI's web UI; by default 8080 or a free one.
        say: called with what is worth a line.
        show: called about once a second with a line on the progress.

    Returns:
        The experiment, and how its trials ended; None where it had ended before.

    Raises:
        FolderError: the folder has results of another plan.
        TuningError: the experiment has ended with an error, or was ended from outside.
        LaunchError: NNI cannot start it.
        Interrupted: the user has stopped it.
    """
    record = Record.read(out)
    if port is not None and not record.experiment:
        launch.check_idle(port)
    settings = {key: value for key, value in asdict(plan).items() if key != "concurrency"}
    files.note(out / _SETTINGS, settings | {"data": str(data.folder)})
    experiment = plan.experiment(data.folder, working_directory(out))
    files.write_text(out / EXPERIMENT, planning.as_yaml(experiment, "tune", EXPERIMENT))
    if record.done:
        return record, None
    with launch.interruptible():
        running = _running(record, out) or _start(record, out, port, say)
        try:
            say(f"Experiment {running.id}; web UI while it runs: http://localhost:{running.port}")
            progress = _watch(running, plan, say, show)
        except NothingCameOutError:
            Record().write(out)
            (out / _SETTINGS).unlink()  # what was wrong may have been one of them
            raise
        finally:
            running.stop()
    done = Record(running.id, running.port, done=True)
    done.write(out)
    return done, progress


def _running(record: Record, out: Path) -> RunningExperiment | None:
    """The experiment of an earlier call if it still goes on: the command was killed, NNI was not."""
    if not record.experiment:
        return None
    running = launch.find(record.experiment, record.port, record.folder(out))
    if running is not None and running.status().name not in (*_GOES_ON, "DONE"):
        running.stop()
        return None
    return running


def _start(record: Record, out: Path, port: int | None, say: Say) -> RunningExperiment:
    """Start the experiment, or go on with the one that was stopped."""
    known = (record.folder(out) / "db" / "nni.sqlite").is_file() and bool(record.experiment)
    if known:
        say(f"Going on with experiment {record.experiment}")
    config = _load(out / EXPERIMENT)

    def announce(experiment: str, used: int, folder: Path) -> None:
        Record(experiment, used).write(out)

    return launch.start(config, _port(port), resume=record.experiment if known else None, announce=announce)


def _load(file: Path) -> ExperimentConfig:
    import nni
    from nni.experiment import ExperimentConfig

    nni.silence_stdout()
    logging.getLogger("nni").setLevel(logging.WARNING)  # what NNI tells at its start is told here in other words
    return ExperimentConfig.load(file)


def _port(wanted: int | None) -> int | None:
    """The port that is asked for, else the usual one if it is idle, else None for any."""
    if wanted is not None:
        return wanted
    try:
        launch.check_idle(_USUAL_PORT)
        return _USUAL_PORT
    except LaunchError:
        return None


def _watch(running: RunningExperiment, plan: Plan, say: Say, show: Callable[[str], None]) -> Progress:
    """Wait for the end of an experiment, and tell each result."""
    told = of_trials([], plan.budget)
    while True:
        status = running.status()  # before the trials: what ended the experiment is among them then
        try:
            progress = of_trials(running.trial_jobs(), plan.budget)
        except OSError:
            raise TuningError(f"NNI's manager of experiment {running.id} has ended; the same command goes on") from None
        _tell(told, progress, say)
        told = progress
        show(f"{progress.line(plan.concurrency)}; http://localhost:{running.port}")
        if status.name == "DONE" and progress.aps:
            return progress
        if status.name not in _GOES_ON:
            raise _why(running, status.name, progress, status.errors)
        time.sleep(_POLL_SECONDS)


def _tell(before: Progress, now: Progress, say: Say) -> None:
    if now.to_beat is not None and before.to_beat is None:
        say(f"AP@50 of the starting detector on the validation split, which is to beat: {now.to_beat:.3f}")
    for number, ap in enumerate(now.aps[len(before.aps) :], start=len(before.aps) + 1):
        say(f"Result {number} of {now.budget}: AP@50 {ap:.3f}")
    if now.failed > before.failed:
        say(f"{now.failed} of {now.budget} trials failed")


def _why(running: RunningExperiment, status: str, progress: Progress, errors: list[str]) -> TuningError:
    """Why an experiment has ended too early: in a trial's own words if all have failed, else in NNI's."""
    if status in ("STOPPED", "STOPPING", "GONE"):
        return TuningError(f"experiment {running.id} was stopped from outside; the same command goes on")
    if progress.last_failed is not None and not progress.aps:
        what = "every trial has failed" if progress.failed else "the first trial has failed"
        reason = trial_logs.reason_of(running.folder, progress.last_failed)
        advice = "; add --options '--batch-size 4' or a smaller --size" if "out of memory" in reason.lower() else ""
        return NothingCameOutError(f"{what}: {reason}{advice}")
    reason = "; ".join(errors) or f"NNI's status is {status}"
    message = f"experiment {running.id} has ended with an error: {reason}; its logs are in {running.folder / 'log'}"
    return TuningError(message) if progress.aps else NothingCameOutError(message)
