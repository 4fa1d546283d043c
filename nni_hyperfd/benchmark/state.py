"""What a growing state costs: seconds of the platform and bytes on disk against the number of past tasks.

python -m nni_hyperfd.benchmark.state

The tasks are made up, but each went its whole way: described, four results of 216 configurations, the extractor (of a
detector with 80 channels) updated, the ranker trained, eight offline data sets. From the 11th on their rows are copies.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sqlalchemy import inspect, select
from sqlalchemy.orm import Session

from nni_hyperfd.method import MetaFeatureExtractor, features, weights
from nni_hyperfd.platform import Platform, TrialView, own_datasets
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state.tables import Base, ExtractorRow, TaskRow
from nni_hyperfd.task import TaskSettings
from nni_hyperfd.wire import Description, ExtractorUpdate

Row = TypeVar("Row", bound=Base)

PAST, LIVED = (30, 300, 3000), 10
SPACE = SearchSpace.from_nni({name: {"_type": "choice", "_value": [1, 2, 3, 4, 5, 6]} for name in ("a", "b", "c")})
CHANNELS, OFFLINE_SETS = 80, 8


def main() -> None:
    torch.set_num_threads(1)
    table = Table("past tasks", "learn, then first pick (s)", "each further pick (s)", "close (s)", "bytes per task")
    with TemporaryDirectory() as folder:
        platform = Platform(Path(folder) / "state.sqlite")
        add_offline_sets(platform)
        empty = bytes_used(platform)
        for number in range(LIVED):
            _live(platform, f"lived {number}")
        for past in PAST:
            _copy(platform, past - len(platform.tasks()))
            first, further, close = _live(platform, f"measured {past}")
            size = (bytes_used(platform) - empty) / (past + 1)
            table.add_row(str(past), f"{first:.2f}", f"{further:.3f}", f"{close:.2f}", f"{size:,.0f}")
    Console().print(table)


def add_offline_sets(platform: Platform) -> None:
    """Give it made-up data sets of its own."""
    for number in range(OFFLINE_SETS):
        images = torch.rand(64, 3, 3, CHANNELS + 4, generator=torch.Generator().manual_seed(number))
        packed = weights.dumps(features.pack(images, torch.tensor([64.0, 100.0])))
        own_datasets.add(platform, str(number), packed)


def _live(platform: Platform, name: str) -> tuple[float, float, float]:
    """One task; seconds until its first pick, for each other (median), and for closing it."""
    rng = np.random.default_rng(len(platform.tasks()))
    task_id = platform.open_task(name, SPACE, TaskSettings())
    platform.start(following(platform, task_id).id, 0)
    platform.describe(task_id, 0, Description(rng.standard_normal(64).tolist(), 64, 100, 0.5))
    picks = []
    for parameter_id in range(1, 5):
        begin = time.perf_counter()
        trial = following(platform, task_id)
        picks.append(time.perf_counter() - begin)
        platform.start(trial.id, parameter_id)
        platform.observe(task_id, parameter_id, float(rng.random()))
    platform.start(following(platform, task_id).id, 5)
    extractor = MetaFeatureExtractor.initial(CHANNELS + 4, seed=int(rng.integers(1000))).state_dict()
    importance = {name: tensor.abs() for name, tensor in extractor.items()}
    update = ExtractorUpdate(extractor, importance, rng.standard_normal(64).tolist())
    begin = time.perf_counter()
    platform.close_task(task_id, update)
    return picks[0], median(picks[1:]), time.perf_counter() - begin


def following(platform: Platform, task_id: int) -> TrialView:
    """The next trial of a task that has one."""
    trial = platform.next_trial(task_id)
    if trial is None:
        raise RuntimeError(f"Task {task_id} has no trial to run.")
    return trial


def _copy(platform: Platform, count: int) -> None:
    """Repeat the newest task's rows, each with an extractor version of its own."""
    with platform.store.write() as session:
        newest = session.scalars(select(TaskRow).order_by(TaskRow.id.desc()).limit(1)).one()
        head = session.get_one(ExtractorRow, newest.extractor_id)
        for number in range(count):
            extractor = _twin(session, head, head=False, weights=f"dropped {number}", importance=None)
            task = _twin(session, newest, experiment=f"copy {newest.id + number}", extractor_id=extractor.id)
            for trial in newest.trials:
                _twin(session, trial, task_id=task.id, parameter_id=None)


def _twin(session: Session, row: Row, **changes: object) -> Row:
    twin = copied(row, **changes)
    session.add(twin)
    session.flush()
    return twin


def copied(row: Row, **changes: object) -> Row:
    """A new row like this one but for the changes, in no session yet."""
    names = {column.key for column in inspect(type(row)).column_attrs} - {"id"}
    return type(row)(**{name: getattr(row, name) for name in names} | changes)


def bytes_used(platform: Platform) -> int:
    """Size of the state without the pages that are free to be used again."""
    with platform.store.read() as session:
        pages, free, size = (
            int(session.connection().exec_driver_sql(f"PRAGMA {name}").scalar_one())
            for name in ("page_count", "freelist_count", "page_size")
        )
    return (pages - free) * size


if __name__ == "__main__":
    main()
