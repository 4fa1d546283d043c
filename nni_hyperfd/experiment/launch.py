"""Starting, finding and stopping NNI experiments from Python, on a busy machine too.

NNI 3.0 starts an experiment with two fixed time limits that a busy machine exceeds. Its launcher gives the manager
three seconds to answer (otherwise: ``JSONDecodeError``, or a refused connection). The manager gives the dispatcher ten
seconds to connect (otherwise: the experiment ends with "Tuner did not connect in 10 seconds"). Here both wait longer,
as long as the process that they wait for is alive. What fails for a reason that may not return is started anew.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import psutil
import requests

from nni_hyperfd.experiment.manager import ExperimentStatus, Manager

if TYPE_CHECKING:
    from nni.experiment import Experiment, ExperimentConfig

_ATTEMPTS = 3
_ANSWER_SECONDS = 180  # for the manager's REST server; its dispatcher has as long (patient_manager.js)
_STOP_SECONDS = 75  # a manager ends itself after 60 s, whatever hangs
_POLL_SECONDS = 0.2
_CONNECTED = "Add event listeners"  # the manager's log, at level info: its dispatcher has connected
_ENDED = ("DONE", "ERROR", "STOPPED")


class LaunchError(RuntimeError):
    """NNI cannot start an experiment; the message is for the user."""


class TryAgainError(LaunchError):
    """NNI could not start an experiment this time; it is worth another attempt."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C was pressed, or the process was sent SIGTERM.

    Attributes:
        exit_code: the exit code that says so (130 or 143).
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@dataclass(frozen=True)
class RunningExperiment:
    """An NNI experiment on this machine whose manager was alive when it was found.

    Attributes:
        id: NNI's id of the experiment.
        port: of its REST server and web UI.
        folder: NNI's folder for this experiment, with ``log/`` and ``db/``.
        process: the manager.
        log_start: size in bytes that the manager's log had before this manager was started.
    """

    id: str
    port: int
    folder: Path
    process: psutil.Process
    log_start: int = 0

    @property
    def manager(self) -> Manager:
        """The manager's REST server."""
        return Manager(_address(self.port))

    def status(self) -> ExperimentStatus:
        """Return NNI's status; ``"RUNNING"`` while the manager is too busy to answer, ``"GONE"`` when it has ended."""
        try:
            return self.manager.status()
        except requests.RequestException:
            return ExperimentStatus("RUNNING" if _is_alive(self.process) else "GONE", [])

    def trial_jobs(self) -> list[dict[str, Any]]:
        """Return NNI's records of all trials, after waiting while the manager is too busy to answer.

        Raises:
            OSError: the manager has ended.
        """
        while True:
            try:
                return self.manager.trial_jobs()
            except requests.RequestException:
                if not _is_alive(self.process):
                    raise
            time.sleep(_POLL_SECONDS)

    def log_says(self, text: str) -> bool:
        """Return whether a text is in what the manager has logged."""
        log = _log(self.folder)
        return log.exists() and text.encode() in log.read_bytes()[self.log_start :]

    def stop(self) -> None:
        """End the manager, its dispatcher and its trials, and wait until they are gone."""
        from nni.runtime.log import stop_experiment_logging

        _end(self.process)
        stop_experiment_logging(self.id)


def start(
    config: ExperimentConfig,
    port: int | None = None,
    *,
    resume: str | None = None,
    announce: Callable[[str, int, Path], None] = lambda id, port, folder: None,
    is_ready: Callable[[RunningExperiment], bool] = lambda running: running.log_says(_CONNECTED),
) -> RunningExperiment:
    """Start an experiment and wait until it is ready.

    When this is interrupted or fails, everything that it has started is stopped.

    Args:
        config: of the experiment.
        port: for NNI's REST server and web UI; by default a free one, chosen for each attempt.
        resume: id of a stopped experiment to continue; by default a new experiment is started.
        announce: called before each attempt with the experiment's id, port and folder.
        is_ready: says whether the experiment is ready, and raises `TryAgainError` if it never will be; by default, it
            is ready when its dispatcher has connected, which NNI notes at ``logLevel: info`` or more detailed ones.

    Returns:
        The experiment, which is ready or has ended by itself.

    Raises:
        LaunchError: NNI cannot start it.
    """
    if port is not None:
        check_idle(port)
    for _ in range(_ATTEMPTS):
        try:
            return _attempt(config, port or free_port(), resume, announce, is_ready)
        except TryAgainError as error:
            reason = error
    raise LaunchError(f"NNI could not start an experiment in {_ATTEMPTS} attempts: {reason}") from reason


def find(id: str, port: int, folder: Path) -> RunningExperiment | None:
    """Return an experiment that was started earlier, perhaps by another process, if its manager is alive."""
    for known, process in _managers():
        if known == id:
            return RunningExperiment(id, port, folder, process)
    return None


def running_ids() -> list[str]:
    """Return the ids of all NNI experiments whose managers are alive on this machine, sorted."""
    return sorted(id for id, _ in _managers())


def _managers() -> Iterator[tuple[str, psutil.Process]]:
    """NNI's id of each experiment that runs on this machine, and its manager."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            for option, value in zip(words, words[1:], strict=False):
                if option == "--experiment-id" and _is_alive(process):
                    yield value, process


def check_idle(port: int) -> None:
    """Check that nothing listens on a port.

    Raises:
        LaunchError: a program uses it.
    """
    with socket.socket() as probe:
        if probe.connect_ex(("localhost", port)) == 0:
            raise LaunchError(f"port {port} is in use; stop the program that uses it, or name another port")


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` on Ctrl-C and SIGTERM within the block, which the main thread must execute.

    Only the first of these signals counts, so that stopping what runs is not interrupted by the second one.
    """

    def interrupt(number: int, _: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _attempt(
    config: ExperimentConfig,
    port: int,
    resume: str | None,
    announce: Callable[[str, int, Path], None],
    is_ready: Callable[[RunningExperiment], bool],
) -> RunningExperiment:
    """Start an experiment once."""
    from nni.experiment import Experiment

    experiment = Experiment(config, id=resume)
    if resume is not None:
        experiment._action = "resume"
    folder = Path(config.canonical_copy().experiment_working_directory, experiment.id)
    log = _log(folder)
    log_start = log.stat().st_size if log.exists() else 0
    announce(experiment.id, port, folder)
    with _ended_on_failure(experiment.id) as children:
        _start_manager(experiment, port, folder, children)
        (process,) = children()
        running = RunningExperiment(experiment.id, port, folder, process, log_start)
        _wait_until_ready(running, is_ready)
        return running


def _start_manager(
    experiment: Experiment, port: int, folder: Path, children: Callable[[], list[psutil.Process]]
) -> None:
    """Start a manager and give it the experiment."""
    from nni.experiment import RunMode

    try:
        with _patience(children):
            experiment.start(port, run_mode=RunMode.Detach)
    except requests.HTTPError as error:
        raise LaunchError(f"NNI refuses the experiment: {error.response.text}; {folder / 'log'} has more") from error
    except (RuntimeError, requests.RequestException) as error:
        raise TryAgainError(f"{error}; {folder / 'log'} has more") from error


@contextmanager
def _patience(children: Callable[[], list[psutil.Process]]) -> Iterator[None]:
    """Raise both of NNI's time limits for a manager that is started within the block. NNI has no settings for them."""
    from nni.experiment import launcher

    check, options = launcher._check_rest_server, os.environ.get("NODE_OPTIONS")
    launcher._check_rest_server = lambda port, **_: _wait_for_rest_server(port, children)
    os.environ["NODE_OPTIONS"] = f'{options or ""} --require "{Path(__file__).with_name("patient_manager.js")}"'.strip()
    try:
        yield
    finally:
        launcher._check_rest_server = check
        if options is None:
            del os.environ["NODE_OPTIONS"]
        else:
            os.environ["NODE_OPTIONS"] = options


def _wait_for_rest_server(port: int, children: Callable[[], list[psutil.Process]]) -> None:
    """Wait until the manager answers with its status; before, it refuses connections or answers "INITIALIZING"."""
    deadline = time.monotonic() + _ANSWER_SECONDS
    while True:
        try:
            Manager(_address(port)).status()
            return
        except requests.RequestException:
            pass
        if not any(map(_is_alive, children())):
            raise TryAgainError("NNI's manager ended before it answered")
        if time.monotonic() > deadline:
            raise TryAgainError(f"NNI's manager did not answer within {_ANSWER_SECONDS} s")
        time.sleep(_POLL_SECONDS)


def _wait_until_ready(running: RunningExperiment, is_ready: Callable[[RunningExperiment], bool]) -> None:
    """Wait until an experiment is ready or has ended by itself."""
    while not is_ready(running):
        has_dispatcher = _has_children(running.process)  # before the status, which may say why it has not
        status = running.status()
        if status.name == "GONE":
            raise TryAgainError(f"NNI's manager has ended; {running.folder / 'log'} has more")
        if status.name in _ENDED:
            return
        if not has_dispatcher:
            raise LaunchError(f"the tuner has ended before it connected; {running.folder / 'log'} has more")
        time.sleep(_POLL_SECONDS)


@contextmanager
def _ended_on_failure(id: str) -> Iterator[Callable[[], list[psutil.Process]]]:
    """End the experiment of this id if the block that starts it raises: all child processes that the block has started.

    Yields:
        A function that returns those child processes.
    """
    from nni.runtime.log import stop_experiment_logging

    earlier = set(psutil.Process().children())

    def children() -> list[psutil.Process]:
        return [process for process in psutil.Process().children() if process not in earlier]

    try:
        yield children
    except BaseException:
        for process in children():
            _end(process)
        stop_experiment_logging(id)
        raise


def _end(manager: psutil.Process) -> None:
    """End a manager, and what it leaves behind when it stops half-way: a late dispatcher, or trials."""
    try:
        left = manager.children(recursive=True)
        manager.terminate()
    except psutil.NoSuchProcess:
        return
    _, alive = psutil.wait_procs([manager], timeout=_STOP_SECONDS)
    for process in (left := [*alive, *left]):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=10)


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _has_children(process: psutil.Process) -> bool:
    try:
        return bool(process.children())
    except psutil.NoSuchProcess:
        return False


def _address(port: int) -> str:
    return f"http://localhost:{port}"


def _log(folder: Path) -> Path:
    return folder / "log" / "nnimanager.log"
