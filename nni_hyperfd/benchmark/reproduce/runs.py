"""Runs of all arms on tables, in several processes, kept row by row: what is there is not done again."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from importlib.metadata import version
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout

from nni_hyperfd.benchmark import tables
from nni_hyperfd.benchmark.protocol import run, turns
from nni_hyperfd.benchmark.reproduce.arms import ARMS, OVER_BUDGETS, OVER_ORDERS, Variant, unavailable
from nni_hyperfd.benchmark.server import offline, run_of
from nni_hyperfd.benchmark.tables import TableError
from nni_hyperfd.method import weights
from nni_hyperfd.method.config_encoder import MLPEncoder
from nni_hyperfd.method.learning import WarmUp, warm_up

BUDGET = 4
BUDGETS = (2, 4, 6, 8, 10)
WARM_UPS = 4
"""Seeds of the warm-up; run s starts from that of s modulo this. The server warms up once, tasks come in any order."""
MOST_TASKS = 16
"""Tasks of a run at most, as in `hyperfd benchmark`."""
COLUMNS = ("table", "arm", "budget", "seed", "tasks", "position", "task", "rank_percent", "gain", "picked", "seconds")


class Job(NamedTuple):
    """One arm's way through a table with one seed."""

    table: Path
    arm: str
    budget: int
    seed: int

    @property
    def key(self) -> tuple[str, str, int, int]:
        return (self.table.name, *self[1:])


class WarmUpJob(NamedTuple):
    """The warm-up that an arm, and all that share it, start from."""

    table: Path
    arm: str
    seed: int
    file: Path


def jobs(folder: Path, seeds: int, orders: int) -> list[Job]:
    """Everything that the exhibits need of a table, in the order in which it is done.

    Raises TableError for a table that cannot be read, does not say which data sets are the server's own, or has fewer
    than two others.
    """
    table = _table(folder)
    if not table.server:
        raise TableError(f"{folder} names no data sets of the server's own; make it with hyperfd table --server.")
    if len(table.tasks) - len(table.server) < 2:
        raise TableError(f"{folder} has fewer than two data sets beside the server's own; measure more.")
    able = [name for name, arm in ARMS.items() if not unavailable(arm, table)]
    compared = [(name, BUDGET) for name in able]
    compared += itertools.product(OVER_BUDGETS, [budget for budget in BUDGETS if budget != BUDGET])
    ordered = [(name, BUDGET) for name in OVER_ORDERS]
    # Seed by seed, so that a run that is stopped has done all of the first ones.
    wanted = [(seed, what) for seed in range(seeds) for what in compared]
    wanted += [(seed, what) for seed in range(seeds, orders) for what in ordered]
    return [Job(folder, *what, seed) for seed, what in wanted]


def run_all(folders: Iterable[Path], out: Path, seeds: int, orders: int, processes: int, track: Callable) -> None:
    """Do what is missing. track: tells the progress, as `rich.progress.Progress.track` does.

    Raises TableError when `out` holds what another table or version has brought, or another process is at work there.
    """
    folders = list(folders)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        for folder in folders:
            _note(out / f"{folder.name}.json", {"nni-hyperfd": version("nni-hyperfd"), "digest": _table(folder).digest})
        wanted = [job for folder in folders for job in jobs(folder, seeds, orders)]
        done = set(outcomes(out)[list(COLUMNS[:4])].itertuples(index=False, name=None))
        missing = [job for job in wanted if job.key not in done]
        warm = {start.file: start for job in missing if (start := warm_up_of(job, out)) is not None}
        with workers(processes) as pool:
            waiting = [pool.submit(do_warm_up, job) for job in warm.values() if not job.file.is_file()]
            for ended in track(as_completed(waiting), total=len(waiting), description="warm-ups"):
                ended.result()
            waiting = [pool.submit(do_run, job, warm_up_of(job, out)) for job in missing]
            try:
                for ended in track(as_completed(waiting), total=len(waiting), description="runs"):
                    _append(out / "outcomes.csv", ended.result())
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def workers(processes: int) -> ProcessPoolExecutor:
    """Processes of one thread each, which end with this one, however it ends."""
    return ProcessPoolExecutor(processes, get_context("spawn"), _begin_work)


def _begin_work() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent_process().join()
    os._exit(1)


def warm_up_of(job: Job, out: Path) -> WarmUpJob | None:
    """What the job starts from; None for one that starts from nothing."""
    arm = ARMS[job.arm]
    if not isinstance(arm, Variant):
        return None
    first = next(name for name, other in ARMS.items() if isinstance(other, Variant) and other.warms_up_like(arm))
    seed = job.seed % WARM_UPS
    name = "".join(letter if letter.isalnum() else "-" for letter in first)
    return WarmUpJob(job.table, first, seed, out / "warm-ups" / f"{job.table.name} {name} {seed}.safetensors")


def do_warm_up(job: WarmUpJob) -> None:
    """Warm up and write both networks with their NDCG on what was held out."""
    began = time.perf_counter()
    table = _table(job.table)
    arm, protocol = ARMS[job.arm], run_of(table, MOST_TASKS)
    recommender = arm.recommender(job.seed, offline(table, protocol, job.seed), None)
    extractor, encoder = _untrained(recommender, job.seed)
    if arm.warm:
        warmed = warm_up(extractor, encoder, recommender.offline, arm.settings, job.seed)
    else:
        none = {name: torch.zeros_like(parameter) for name, parameter in extractor.named_parameters()}
        warmed = WarmUp(extractor, encoder, none, [float("nan")])
    named = {f"extractor.{name}": tensor for name, tensor in warmed.extractor.state_dict().items()}
    named |= {f"encoder.{name}": tensor for name, tensor in warmed.encoder.state_dict().items()}
    named |= {f"importance.{name}": tensor for name, tensor in warmed.importance.items()}
    measures = [np.nan_to_num(max(warmed.ndcg), nan=-1.0), time.perf_counter() - began]
    named["ndcg and seconds"] = torch.tensor(measures, dtype=torch.float32)
    job.file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = job.file.with_suffix(".part")
    unfinished.write_bytes(weights.dumps(named))
    unfinished.rename(job.file)


def do_run(job: Job, start: WarmUpJob | None) -> list[dict[str, Any]]:
    """The rows of a job."""
    began = time.perf_counter()
    table = _table(job.table)
    protocol = run_of(table, MOST_TASKS, job.budget)
    own = offline(table, protocol, job.seed % WARM_UPS)
    warmed = None if start is None else _warmed(start, own)
    recommender = ARMS[job.arm].recommender(job.seed, own, warmed)
    found = list(run(table, protocol, lambda _: recommender, job.seed))
    places = {turn.task: turn for turn in turns(table, protocol, job.seed)}
    seconds = round(time.perf_counter() - began, 3)
    rows = []
    for outcome in found:
        turn = places[table.tasks.index(outcome.task)]
        picked = int(turn.indices[max(outcome.picks, key=lambda pick: turn.performance[pick])])
        values = (len(found), outcome.position, outcome.task, outcome.rank_percent[-1], outcome.gain, picked, seconds)
        rows.append(dict(zip(COLUMNS, (*job.key, *values), strict=True)))
    return rows


def outcomes(out: Path) -> pd.DataFrame:
    """The rows of all runs that have ended, with `COLUMNS`; `picked` is the place in the table of the pick that
    validated best."""
    path = out / "outcomes.csv"
    content = path.read_bytes() if path.is_file() else b""
    lines = content[: content.rfind(b"\n") + 1]
    if not lines:
        path.unlink(missing_ok=True)
        return pd.DataFrame(columns=COLUMNS)
    # Names may look like numbers.
    rows = pd.read_csv(io.BytesIO(lines), dtype={"table": str, "arm": str, "task": str})
    whole = rows.groupby(list(COLUMNS[:4])).position.transform("size") == rows.tasks
    if lines != content or not whole.all():  # a kill has cut off the last one
        rows = rows[whole]
        unfinished = path.with_suffix(".part")
        rows.to_csv(unfinished, index=False)
        unfinished.replace(path)
    return rows


def warm_ups(folder: Path, out: Path) -> pd.DataFrame:
    """A row per arm and seed that a table's runs have started from: `arm`, `seed`, `ndcg` (NaN: cold), `seconds`."""
    rows = []
    for name, seed in itertools.product(ARMS, range(WARM_UPS)):
        start = warm_up_of(Job(folder, name, BUDGET, seed), out)
        if start is not None and start.file.is_file():
            ndcg, seconds = weights.loads(start.file.read_bytes())["ndcg and seconds"].tolist()
            rows.append({"arm": name, "seed": seed, "ndcg": ndcg if ndcg >= 0 else np.nan, "seconds": seconds})
    return pd.DataFrame(rows, columns=["arm", "seed", "ndcg", "seconds"])


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Within the block, no other process is in a block for this folder."""
    try:
        with FileLock(out / "lock", timeout=0):
            yield
    except Timeout:
        raise TableError(f"{out} is being filled by another process; wait for it, or name another --out.") from None


@cache
def _table(folder: Path) -> tables.Table:
    return tables.load(folder)


def _untrained(recommender: Any, seed: int) -> tuple[torch.nn.Module, MLPEncoder]:
    first = recommender.offline[0]
    extractor = recommender.new_extractor(first.features.shape[-1], seed)
    return extractor, MLPEncoder.initial(first.inputs.shape[-1], seed, recommender.settings.hidden)


def warmed_extractor(folder: Path, out: Path, arm: str) -> torch.nn.Module:
    """What the runs of an arm with seed 0 begin with."""
    table = _table(folder)
    start = warm_up_of(Job(folder, arm, BUDGET, 0), out)
    return _warmed(start, offline(table, run_of(table, MOST_TASKS), 0)).extractor


def _warmed(start: WarmUpJob, own: list) -> WarmUp:
    extractor, encoder = _untrained(ARMS[start.arm].recommender(start.seed, own, None), start.seed)
    named = weights.loads(start.file.read_bytes())
    extractor.load_state_dict(weights.under(named, "extractor"))
    encoder.load_state_dict(weights.under(named, "encoder"))
    return WarmUp(extractor, encoder, weights.under(named, "importance"), named["ndcg and seconds"][:1].tolist())


def _note(path: Path, content: dict[str, str]) -> None:
    if not path.is_file():
        path.write_text(json.dumps(content, indent=1) + "\n")
    elif (other := json.loads(path.read_text())) != content:
        changed = next(key for key in content if other.get(key) != content[key])
        raise TableError(
            f"{path.parent} holds runs on another {path.stem}: its {changed} was {other.get(changed)!r}, now it is"
            f" {content[changed]!r}; name another --out."
        )


def _append(path: Path, rows: list[dict[str, Any]]) -> None:
    """One write, so that a kill leaves whole runs, and at most one that is cut off."""
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(rows)
