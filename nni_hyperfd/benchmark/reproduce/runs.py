"""Runs of all arms on tables, in several processes, kept row by row: what has been done is not done again."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from importlib.metadata import version
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from nni_hyperfd.benchmark import results
from nni_hyperfd.benchmark.protocol import course, lead
from nni_hyperfd.benchmark.reproduce import warm_ups
from nni_hyperfd.benchmark.reproduce.arms import ARMS
from nni_hyperfd.benchmark.reproduce.plan import WARM_UPS, ArmRun, ArmWarmUp, Setting, planned, warm_up_of
from nni_hyperfd.benchmark.reproduce.warm_ups import do_warm_up
from nni_hyperfd.benchmark.results import RecommenderRun
from nni_hyperfd.files import RowFile, locked, note

COLUMNS = {
    "table": str,
    "arm": str,
    "budget": int,
    "seed": int,
    "position": int,
    "task": str,
    "rank_percent": float,
    "gain": float,
    "picked": int,
}
"""Columns of `outcomes` and their types: `position` is that of the task in its run, `picked` the index in the table of
the pick that validated best."""

Track = Callable[..., Iterable[Future[Any]]]
"""Passes futures on and shows the progress, as `rich.progress.Progress.track` does."""


def run_all(settings: Sequence[Setting], out: Path, seeds: int, orders: int, processes: int, track: Track) -> None:
    """Do what is missing of all warm-ups and runs.

    Args:
        settings: the tables, and how runs on them go.
        out: folder of the results.
        seeds: number of seeds of each arm.
        orders: number of seeds of the arms in Figure 4.
        processes: number of processes that work side by side.
        track: shows the progress.

    Raises:
        FolderError: `out` holds results of another table, protocol or version, or another process is working there.
    """
    with locked(out):
        for one in settings:
            how = {"regime": one.protocol.regime, "offline": one.protocol.offline, "digest": one.table.digest}
            note(out / f"{one.folder.name}.json", {"nni-hyperfd": version("nni-hyperfd"), **how})
        done = {found.key for found in results.read(_file(out))}
        wanted = [run for one in settings for run in planned(one, seeds, orders)]
        missing = [run for run in wanted if run.key not in done]
        with workers(processes) as pool:
            try:
                _do_warm_ups(pool, missing, out, track)
                _do_runs(pool, missing, out, track)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _do_warm_ups(pool: ProcessPoolExecutor, missing: Sequence[ArmRun], out: Path, track: Track) -> None:
    """Do the warm-ups that these runs start from and that have not been done."""
    starts = {start.file: start for one in missing if (start := warm_up_of(one, out)) is not None}
    waiting = [pool.submit(do_warm_up, start) for start in starts.values() if not start.file.is_file()]
    for ended in track(as_completed(waiting), total=len(waiting), description="warm-ups"):
        ended.result()


def _do_runs(pool: ProcessPoolExecutor, missing: Sequence[ArmRun], out: Path, track: Track) -> None:
    """Do these runs and keep their rows."""
    file = _file(out)
    waiting = [pool.submit(do_run, one, warm_up_of(one, out)) for one in missing]
    for ended in track(as_completed(waiting), total=len(waiting), description="runs"):
        for row in ended.result().rows:
            file.add(row)


def workers(processes: int) -> ProcessPoolExecutor:
    """Processes of one thread each, which end with this one, however it ends."""
    return ProcessPoolExecutor(processes, get_context("spawn"), _begin_work)


def _begin_work() -> None:
    """Prepare a new worker."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the end of the process that started this one."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def do_run(one: ArmRun, start: ArmWarmUp | None) -> RecommenderRun:
    """Do a run.

    Args:
        one: the run.
        start: the warm-up that it starts from, which has been done; None without one.
    """
    table = one.setting.table
    known = course(table, one.protocol, one.seed, one.seed % WARM_UPS)
    began = time.perf_counter()
    warmed = None if start is None else warm_ups.read(start)
    recommender = ARMS[one.arm].recommender(one.seed, known.offline, warmed)
    outcomes = tuple(lead(recommender, known.turns, one.protocol, one.seed))
    return RecommenderRun(*one.key, outcomes, time.perf_counter() - began, table.missing)


def outcomes(out: Path) -> pd.DataFrame:
    """A row of `COLUMNS` for each task of all runs that have ended."""
    rows = [
        (run.table, run.recommender, run.protocol.budget, run.seed)
        + (one.position, one.task, one.rank_percent[-1], one.gain, one.picks[int(np.argmin(one.rank_percent))])
        for run in results.read(_file(out))
        for one in run.outcomes
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _file(out: Path) -> RowFile:
    """Where the rows are kept."""
    return RowFile(out / results.FILE, results.COLUMNS)
