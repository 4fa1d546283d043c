"""Measuring a file of pairs through an NNI experiment, until all are measured or the user stops it.

Each run of the command starts a new NNI experiment, unless that of an earlier run still goes on: then it is watched.
Results that trials reported to NNI while nobody wrote them into the file of pairs are read from NNI's records first.
"""

from __future__ import annotations

import sqlite3
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nni_hyperfd.experiment import launch
from nni_hyperfd.experiment.launch import RunningExperiment
from nni_hyperfd.space import SearchSpace, SpaceError
from nni_hyperfd.warmup.advisor import DATA, PairAdvisor
from nni_hyperfd.warmup.pairs import FENCE, PairFile, Progress
from nni_hyperfd.wire import final_number, load_json

if TYPE_CHECKING:
    from nni.experiment import ExperimentConfig

PAIRS = "pairs.sqlite"
"""Name of the file of pairs in the folder that the command is given."""
_HOPELESS = 5  # failed trials without a single success: it is not the pairs
_GOES_ON = ("RUNNING", "NO_MORE_TRIAL")
_POLL_SECONDS = 1.0


class CollectError(RuntimeError):
    """Measuring cannot begin or go on; the message is for the user."""


def find_data_sets(folder: Path) -> list[str]:
    """Return the names of the data set folders in a folder, sorted.

    Raises:
        CollectError: there are none.
    """
    names = sorted(path.parent.name for path in folder.glob("*/train.json"))
    if not names:
        raise CollectError(f"{folder}: no folder in it is a data set (train.json, val.json, images/)")
    return names


def load_experiment(file: Path) -> tuple[ExperimentConfig, SearchSpace]:
    """Load a user's NNI experiment file. Its tuner and its ``maxTrialNumber`` will not be used.

    Returns:
        The experiment's configuration, and its search space.

    Raises:
        CollectError: NNI refuses the file, or its search space cannot be encoded.
    """
    import yaml
    from nni.experiment import ExperimentConfig
    from nni.experiment.config.utils import unset_base_path

    try:
        config = ExperimentConfig.load(file)
        _use_pairs(config, file)  # any tuner will do: the user's own must not be a reason to refuse the file
        definition = config.canonical_copy().search_space
    except OSError as error:
        raise CollectError(f"{file}: {error.strerror}") from None
    except (yaml.YAMLError, AttributeError, AssertionError, TypeError, ValueError) as error:
        # Most of NNI's checks are bare assertions: their line is all that tells what is wrong.
        reason = str(error) or traceback.extract_tb(error.__traceback__)[-1].line
        raise CollectError(f"{file}: NNI does not accept it: {reason}") from None
    finally:
        unset_base_path()  # NNI leaves it set when it refuses a file, and then takes no other one
    try:
        space = SearchSpace.from_nni(definition)
    except SpaceError as error:
        raise CollectError(f"{file}: {error}") from None
    if DATA in space.parameters:
        raise CollectError(f"{file}: the name {DATA!r} in its search space is taken by the sub-data-set; rename it")
    return config, space


def collect(pairs: PairFile, config: ExperimentConfig, port: int, show: Callable[[str], None]) -> Progress:
    """Measure until every pair has succeeded or failed; NNI is stopped whatever happens.

    Args:
        pairs: the file, with a plan.
        config: as `load_experiment` returns it.
        port: of NNI's web UI.
        show: called about once a second with a line on the progress.

    Returns:
        How the pairs stand at the end.

    Raises:
        CollectError: NNI ended before the pairs did, or all trials fail.
        LaunchError: NNI cannot start the experiment.
        KeyboardInterrupt: the user stopped it (Ctrl-C or SIGTERM).
    """
    with launch.interruptible():
        experiment = _running(pairs)
        if experiment is None:
            progress = settle(pairs)
            if progress.ended == progress.total:
                return progress
            experiment = _start(pairs, config, port)
        try:
            reason = _watch(pairs, experiment, show)
        finally:
            experiment.stop()
            progress = settle(pairs)
        if reason is not None:
            pairs.forget_failures()
            raise CollectError(
                f"the first {progress.failures} trials have all failed, one of them with: {reason}; correct what is "
                "wrong and run the same command again, which tries these pairs again"
            )
        return progress


def settle(pairs: PairFile) -> Progress:
    """Store the results that reached only NNI, and plan again what was still running, when no experiment goes on.

    Returns:
        How the pairs stand afterwards.
    """
    run = pairs.experiment()
    if run is not None:
        for parameter_id, value in _final_results(Path(run.folder)):
            if (number := final_number(value)) is not None:
                pairs.succeed(run.experiment, parameter_id, number)
        pairs.release(run.experiment, set())
    return pairs.progress()


def describe(progress: Progress, ended_before: int, seconds: float) -> str:
    """Return a line on the progress.

    Args:
        progress: how the pairs stand now.
        ended_before: number of pairs that had ended when measuring began.
        seconds: time since then.
    """
    ended = progress.ended - ended_before
    left = "time left unknown"
    if ended:
        pace = seconds / ended
        left = f"{pace:.1f} s a pair, {timedelta(seconds=round(pace * (progress.total - progress.ended)))} left"
    return (
        f"{progress.ended} of {progress.total} pairs, {progress.failed} of them failed, {progress.running} running; "
        f"{left}; {timedelta(seconds=round(progress.seconds))} of trials so far"
    )


def _use_pairs(config: ExperimentConfig, file: Path) -> None:
    """Let an experiment measure all pairs of a file."""
    from nni.experiment.config import CustomAlgorithmConfig

    name = f"{PairAdvisor.__module__}.{PairAdvisor.__qualname__}"
    config.tuner = CustomAlgorithmConfig(
        class_name=name, code_directory=file.resolve().parent, class_args={"pairs": str(file.resolve())}
    )
    config.advisor = config.max_trial_number = None


def _start(pairs: PairFile, config: ExperimentConfig, port: int) -> RunningExperiment:
    """Start a new experiment and wait until it has claimed a pair."""

    def has_claimed(experiment: RunningExperiment) -> bool:
        # The dispatcher of an experiment whose manager died a moment ago may have found the new manager on its port.
        if experiment.log_says(FENCE):
            raise launch.TryAgainError("the dispatcher of an earlier experiment connected to the new one")
        return bool(pairs.parameter_ids(experiment.id))

    _use_pairs(config, pairs.path)
    return launch.start(config, port, announce=pairs.begin, is_ready=has_claimed)


def _running(pairs: PairFile) -> RunningExperiment | None:
    """Return the experiment of an earlier run if it still goes on: the command was killed, NNI was not."""
    run = pairs.experiment()
    experiment = None if run is None else launch.find(run.experiment, run.port, Path(run.folder))
    if experiment is not None and experiment.status().name not in _GOES_ON:
        experiment.stop()
        return None
    return experiment


def _watch(pairs: PairFile, experiment: RunningExperiment, show: Callable[[str], None]) -> str | None:
    """Wait until all pairs have ended, or all trials fail: then return the reason of one."""
    before, began = pairs.progress(), time.monotonic()
    while True:
        status = experiment.status()  # before the file: what ended the experiment is in it then
        progress = pairs.progress()
        line = describe(progress, before.ended, time.monotonic() - began)
        show(f"{line}; web UI at http://localhost:{experiment.port}")
        if progress.ended == progress.total:
            return None
        if progress.succeeded == 0 and progress.failures >= _HOPELESS:
            return next(pair.reason for pair in pairs.pairs() if pair.reason)
        if status.name not in _GOES_ON:
            raise CollectError(
                f"NNI's experiment {experiment.id} is {status.name} with {progress.total - progress.ended} pairs left"
                f"{''.join(f' ({error})' for error in status.errors)}; the same command goes on"
            )
        time.sleep(_POLL_SECONDS)


def _final_results(folder: Path) -> list[tuple[int, Any]]:
    """Return NNI's parameter id and the final result of each trial that reported one, from an experiment's records."""
    file = folder / "db" / "nni.sqlite"
    if not file.exists():
        return []
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute("SELECT parameterId, data FROM MetricData WHERE type = 'FINAL' ORDER BY rowid")
        return [(int(number), load_json(load_json(data))) for number, data in rows if str(number).isdecimal()]
