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

import pandas as pd
import torch

from nni_hyperfd.benchmark.protocol import run, turns
from nni_hyperfd.benchmark.reproduce import warm_ups
from nni_hyperfd.benchmark.reproduce.arms import ARMS
from nni_hyperfd.benchmark.reproduce.plan import (
    MAX_TASKS,
    WARM_UPS,
    ArmRun,
    ArmWarmUp,
    planned,
    table_of,
    warm_up_of,
)
from nni_hyperfd.benchmark.reproduce.warm_ups import do_warm_up
from nni_hyperfd.benchmark.server import offline, run_of
from nni_hyperfd.files import RowFile, locked, note

_TYPES = {
    "table": str,
    "arm": str,
    "budget": int,
    "seed": int,
    "tasks": int,
    "position": int,
    "task": str,
    "rank_percent": float,
    "gain": float,
    "picked": int,
    "seconds": float,
}
COLUMNS = tuple(_TYPES)
"""Columns of the results, a row per task of a run: `tasks` is the number of tasks of the run, `position` that of the
task among them, `picked` the index in the table of the pick that validated best."""
_KEY = ["table", "arm", "budget", "seed"]

Track = Callable[..., Iterable[Future[Any]]]
"""Passes futures on and shows the progress, as `rich.progress.Progress.track` does."""


def run_all(folders: Iterable[Path], out: Path, seeds: int, orders: int, processes: int, track: Track) -> None:
    """Do what is missing of all warm-ups and runs.

    Args:
        folders: of the tables.
        out: folder of the results.
        seeds: number of seeds of each arm.
        orders: number of seeds of the arms in Figure 4.
        processes: number of processes that work side by side.
        track: shows the progress.

    Raises:
        TableError: a table cannot be used.
        FolderError: `out` holds results of another table or version, or another process is working there.
    """
    folders = list(folders)
    with locked(out):
        for folder in folders:
            of = {"nni-hyperfd": version("nni-hyperfd"), "digest": table_of(folder).digest}
            note(out / f"{folder.name}.json", of)
        wanted = [one for folder in folders for one in planned(folder, seeds, orders)]
        done = set(outcomes(out)[_KEY].itertuples(index=False, name=None))
        missing = [one for one in wanted if one.key not in done]
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
    rows = RowFile(_file(out), COLUMNS)
    waiting = [pool.submit(do_run, one, warm_up_of(one, out)) for one in missing]
    for ended in track(as_completed(waiting), total=len(waiting), description="runs"):
        for row in ended.result():
            rows.add(row)


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


def do_run(one: ArmRun, start: ArmWarmUp | None) -> list[dict[str, object]]:
    """Do a run.

    Args:
        one: the run.
        start: the warm-up that it starts from, which has been done; None without one.

    Returns:
        A row of `COLUMNS` for each task.
    """
    began = time.perf_counter()
    table = table_of(one.table)
    protocol = run_of(table, MAX_TASKS, one.budget)
    own = offline(table, protocol, one.seed % WARM_UPS)
    warmed = None if start is None else warm_ups.read(start, own)
    recommender = ARMS[one.arm].recommender(one.seed, own, warmed)
    found = list(run(table, protocol, lambda _: recommender, one.seed))
    by_task = {turn.task: turn for turn in turns(table, protocol, one.seed)}
    seconds = round(time.perf_counter() - began, 3)
    rows = []
    for outcome in found:
        turn = by_task[table.tasks.index(outcome.task)]
        picked = int(turn.indices[max(outcome.picks, key=lambda pick: turn.performance[pick])])
        values = (len(found), outcome.position, outcome.task, outcome.rank_percent[-1], outcome.gain, picked, seconds)
        rows.append(dict(zip(COLUMNS, (*one.key, *values), strict=True)))
    return rows


def outcomes(out: Path) -> pd.DataFrame:
    """The rows, with `COLUMNS`, of all runs that have ended.

    A run that a kill has cut off counts as not done; when it has been done again, it is there once.
    """
    found = pd.DataFrame(RowFile(_file(out), COLUMNS).rows, columns=list(COLUMNS)).astype(_TYPES)
    found = found.drop_duplicates([*_KEY, "position"], keep="last")
    whole = found.groupby(_KEY).position.transform("size") == found.tasks
    return found[whole].reset_index(drop=True)


def _file(out: Path) -> Path:
    """Where the rows are kept."""
    return out / "outcomes.csv"
