"""Measuring a file of pairs through an NNI experiment, until all are measured or the user stops it.

Every run of the command is a new NNI experiment, unless the last one still goes on: then it is watched. What trials
reported to NNI while nobody wrote it into the file of pairs is read from NNI's own records first.
"""

from __future__ import annotations

import signal
import sqlite3
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import requests
from filelock import FileLock, Timeout

from nni_hyperfd.experiment.advisor import load_json
from nni_hyperfd.space.search_space import SearchSpace
from nni_hyperfd.warmup.advisor import DATA, PairAdvisor, performance
from nni_hyperfd.warmup.pairs import FENCE, PairFile, Progress
from nni_hyperfd.wire import is_finite_number

if TYPE_CHECKING:
    from nni.experiment import Experiment, ExperimentConfig

PAIRS = "pairs.sqlite"
"""The file of pairs in the folder that the command is given."""
_HOPELESS = 5  # so many failed trials without a single success: it is not the pairs
_MANAGER_SECONDS = 60
_ATTEMPTS = 10  # NNI gives its dispatcher 10 s to connect, which a busy machine can miss
_GOES_ON = ("RUNNING", "NO_MORE_TRIAL")
_POLL_SECONDS = 1.0


class CollectError(RuntimeError):
    """The measuring cannot begin or go on; the message is for its user."""


def find_data_sets(folder: Path) -> list[str]:
    """Names of the data set folders in a folder.

    Raises:
        CollectError: there are none.
    """
    names = sorted(path.parent.name for path in folder.glob("*/train.json"))
    if not names:
        raise CollectError(f"{folder}: no folder in it is a data set (train.json, val.json, images/)")
    return names


def load_experiment(file: Path) -> tuple[ExperimentConfig, SearchSpace]:
    """A user's NNI experiment file and its search space. Its tuner and its maxTrialNumber will not be used.

    Raises:
        CollectError: NNI refuses the file. SpaceError: the ranker cannot encode the search space.
    """
    import yaml
    from nni.experiment import ExperimentConfig
    from nni.experiment.config.utils import unset_base_path

    try:
        config = ExperimentConfig.load(file)
        _use_pairs(config, file)  # any tuner, so that NNI has nothing to say about that
        space = SearchSpace.from_nni(config.canonical_copy().search_space)
    except OSError as error:
        raise CollectError(f"{file}: {error.strerror}") from None
    except (yaml.YAMLError, AttributeError, AssertionError, TypeError, ValueError) as error:
        # Most of NNI's checks are bare assertions: their line is all that tells what is wrong.
        reason = str(error) or traceback.extract_tb(error.__traceback__)[-1].line
        raise CollectError(f"{file}: NNI does not accept it: {reason}") from None
    finally:
        unset_base_path()  # NNI leaves it set when it refuses a file, and then takes no other one
    if DATA in space.parameters:
        raise CollectError(f"{file}: the name {DATA!r} in its search space is taken by the sub-data-set; rename it")
    return config, space


def _use_pairs(config: ExperimentConfig, file: Path) -> None:
    """Let the experiment measure this file of pairs, all of them."""
    from nni.experiment.config import CustomAlgorithmConfig

    name = f"{PairAdvisor.__module__}.{PairAdvisor.__qualname__}"
    config.tuner = CustomAlgorithmConfig(
        class_name=name, code_directory=file.resolve().parent, class_args={"pairs": str(file.resolve())}
    )
    config.advisor = config.max_trial_number = None


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder; CollectError when another process does."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            yield
    except Timeout:
        raise CollectError(f"{folder}: another 'hyperfd warmup collect' is at work on it") from None


def collect(pairs: PairFile, config: ExperimentConfig, port: int, show: Callable[[str], None]) -> Progress:
    """Measure until every pair has succeeded or failed, and return how they stand; NNI is stopped whatever happens.

    Args:
        config: as `load_experiment` gives it.
        port: of NNI's web UI.
        show: is called about once a second with a line on how far it is.

    Raises:
        CollectError: NNI ended before the pairs did, or trials do nothing but fail.
        KeyboardInterrupt: the user stopped it (Ctrl-C or SIGTERM).
    """
    with _sigterm_as_interrupt():
        experiment = _running(pairs)
        if experiment is None:
            progress = settle(pairs)
            if progress.ended == progress.total:
                return progress
            experiment = _start(pairs, config, port)
        try:
            hopeless = _watch(pairs, experiment, show)
        finally:
            _stop(experiment)
            progress = settle(pairs)
        if hopeless:
            pairs.forget_failures()
            raise CollectError(
                f"the first {progress.failures} trials have all failed, one of them with: {hopeless}; put right what "
                "is wrong and run the same command again, which tries these pairs again"
            )
        return progress


def settle(pairs: PairFile) -> Progress:
    """When no experiment goes on: take in the results that reached NNI only, plan anew what was still running."""
    run = pairs.run()
    if run is not None:
        for parameter_id, value in _final_results(Path(run.folder)):
            if is_finite_number(number := performance(value)):
                pairs.succeed(run.experiment, parameter_id, float(number))
        pairs.release(run.experiment, set())
    return pairs.progress()


def describe(progress: Progress, ended_before: int, seconds: float) -> str:
    """One line on how far it is: `seconds` ago `ended_before` pairs had ended."""
    ended = progress.ended - ended_before
    left = "time left unknown"
    if ended:
        pace = seconds / ended
        left = f"{pace:.1f} s a pair, {timedelta(seconds=round(pace * (progress.total - progress.ended)))} left"
    return (
        f"{progress.ended} of {progress.total} pairs, {progress.failed} of them failed, {progress.running} running; "
        f"{left}; {timedelta(seconds=round(progress.seconds))} of trials so far"
    )


def _watch(pairs: PairFile, experiment: Experiment, show: Callable[[str], None]) -> str | None:
    """Until all pairs have ended (None), or trials do nothing but fail (the reason of one)."""
    before, began = pairs.progress(), time.monotonic()
    while True:
        status, errors = _status(experiment)  # before the file: what ended the experiment is in it then
        progress = pairs.progress()
        line = describe(progress, before.ended, time.monotonic() - began)
        show(f"{line}; web UI at http://localhost:{experiment.port}")
        if progress.ended == progress.total:
            return None
        if progress.succeeded == 0 and progress.failures >= _HOPELESS:
            return next(pair.reason for pair in pairs.pairs() if pair.reason)
        if status not in _GOES_ON:
            raise CollectError(
                f"NNI's experiment {experiment.id} is {status} with {progress.total - progress.ended} pairs left"
                f"{''.join(f' ({error})' for error in errors)}; the same command goes on"
            )
        time.sleep(_POLL_SECONDS)


def _start(pairs: PairFile, config: ExperimentConfig, port: int) -> Experiment:
    from nni.experiment import Experiment, RunMode, launcher

    # NNI gives its manager three seconds to answer, which is too short on a busy machine, and has no setting for it.
    launcher._check_rest_server = partial(launcher._check_rest_server, retry=_MANAGER_SECONDS)
    _use_pairs(config, pairs.path)
    for _ in range(_ATTEMPTS):
        experiment = Experiment(config)
        folder = Path(config.canonical_copy().experiment_working_directory, experiment.id)
        pairs.begin(experiment.id, port, folder)
        try:
            experiment.start(port, run_mode=RunMode.Detach)
            while (answer := _status(experiment))[0] in _GOES_ON:
                if pairs.parameter_ids(experiment.id):
                    return experiment
                time.sleep(_POLL_SECONDS / 4)
        except (RuntimeError, requests.RequestException) as error:
            answer = "", [str(error)]
        except BaseException:
            _stop(experiment)
            raise
        _stop(experiment)
        # The dispatcher was late, or an earlier experiment's one, whose manager died a moment ago, has found this one.
        if answer[0] == "ERROR" and not _log_says(folder, "did not connect in 10 seconds", FENCE):
            break
        time.sleep(_POLL_SECONDS)
    raise CollectError(f"NNI cannot begin an experiment: {'; '.join(answer[1])}; {folder / 'log'} has more")


def _running(pairs: PairFile) -> Experiment | None:
    """The experiment of an earlier run, if it still goes on: the command was killed, NNI was not."""
    from nni.experiment import Experiment

    run = pairs.run()
    if run is None:
        return None
    try:
        experiment = Experiment.connect(run.port)
    except (requests.RequestException, psutil.Error):
        return None
    if experiment.id != run.experiment:
        return None
    if _status(experiment)[0] not in _GOES_ON:
        _stop(experiment)
        return None
    return experiment


def _status(experiment: Experiment) -> tuple[str, list[str]]:
    """NNI's status and errors. A manager that is too busy to answer goes on, one that has ended is ``"GONE"``."""
    try:
        answer = requests.get(f"http://localhost:{experiment.port}/api/v1/nni/check-status", timeout=20).json()
        return answer["status"], answer["errors"]
    except requests.RequestException:
        return ("RUNNING" if _is_alive(experiment) else "GONE"), []


def _stop(experiment: Experiment) -> None:
    """End the experiment, and what NNI leaves behind of it when it stops half-way: a late dispatcher, or trials."""
    if not _is_alive(experiment):
        return
    try:
        left = psutil.Process(experiment._proc.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return
    experiment.stop()
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=10)


def _is_alive(experiment: Experiment) -> bool:
    process = experiment._proc  # of this process, or found again by `Experiment.connect`
    if process is None:
        return False
    return process.is_running() if isinstance(process, psutil.Process) else process.poll() is None


def _log_says(folder: Path, *texts: str) -> bool:
    """Whether the manager's log has one of the texts."""
    log = folder / "log" / "nnimanager.log"
    return log.exists() and any(text in log.read_text(errors="replace") for text in texts)


def _final_results(folder: Path) -> list[tuple[int, Any]]:
    """NNI's number and the final result of every trial that reported one, from an experiment's own records."""
    file = folder / "db" / "nni.sqlite"
    if not file.exists():
        return []
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute("SELECT parameterId, data FROM MetricData WHERE type = 'FINAL' ORDER BY rowid")
        return [(int(number), load_json(load_json(data))) for number, data in rows if str(number).isdecimal()]


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
