"""What a growing state costs: seconds of the platform and bytes on disk against the number of past tasks.

    python -m nni_hyperfd.benchmark.state

The tasks are made up, but each goes its whole way through the platform: a description, four results of 216
configurations, an update of the extractor (of a detector with 80 channels), training of the encoder; there are eight
offline data sets. From the 11th task on, rows are copied.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

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

_Row = TypeVar("_Row", bound=Base)

PAST = (30, 300, 3000)
"""Numbers of past tasks to measure at."""
LIVED = 10
"""Number of tasks that go their whole way before rows are copied."""
SPACE = SearchSpace.from_nni({name: {"_type": "choice", "_value": [1, 2, 3, 4, 5, 6]} for name in ("a", "b", "c")})
CHANNELS, OFFLINE_SETS = 80, 8


class Ready(NamedTuple):
    """A task that is about to be closed.

    Attributes:
        task_id: of the task.
        update: what a learn trial would send.
        picks: seconds until each of its picks.
    """

    task_id: int
    update: ExtractorUpdate
    picks: list[float]


def main() -> None:
    """Measure a task at each of `PAST`, and print a table."""
    torch.set_num_threads(1)
    table = Table("past tasks", "learn, then first pick (s)", "each further pick (s)", "close (s)", "bytes per task")
    with TemporaryDirectory() as folder:
        platform = Platform(Path(folder) / "state.sqlite")
        add_offline_sets(platform)
        empty = bytes_used(platform)
        for past in PAST:
            grow(platform, past)
            first, further, close = _timed(platform, f"measured {past}")
            size = (bytes_used(platform) - empty) / (past + 1)
            table.add_row(str(past), f"{first:.2f}", f"{further:.3f}", f"{close:.2f}", f"{size:,.0f}")
    Console().print(table)


def add_offline_sets(platform: Platform, count: int = OFFLINE_SETS) -> None:
    """Give the platform so many made-up data sets of its own, whose names are numbers."""
    for number in range(count):
        images = torch.rand(64, 3, 3, CHANNELS + 4, generator=torch.Generator().manual_seed(number))
        packed = weights.dumps(features.pack(images, torch.tensor([64.0, 100.0])))
        own_datasets.add(platform, str(number), packed)


def grow(platform: Platform, past: int) -> None:
    """Bring a platform to a number of past tasks, at least `LIVED`; the first ones go their whole way."""
    for number in range(len(platform.tasks()), LIVED):
        ready = lead(platform, f"lived {number}")
        platform.close_task(ready.task_id, ready.update)
    _copy(platform, past - len(platform.tasks()))


def lead(platform: Platform, name: str, settings: TaskSettings | None = None) -> Ready:
    """Lead a new task through the platform until it is ready to be closed with an update of the extractor."""
    rng = np.random.default_rng(len(platform.tasks()))
    task_id = platform.open_task(name, SPACE, settings or TaskSettings())
    platform.start(following(platform, task_id).id, 0)
    platform.describe(task_id, 0, Description(rng.standard_normal(64).tolist(), 64, 100, 0.5))
    picks = []
    for parameter_id in range(1, 5):
        begin = time.perf_counter()
        trial_id = following(platform, task_id).id
        picks.append(time.perf_counter() - begin)
        platform.start(trial_id, parameter_id)
        platform.observe(task_id, parameter_id, float(rng.random()))
    extractor = MetaFeatureExtractor.initial(CHANNELS + 4, seed=int(rng.integers(1000))).state_dict()
    importance = {name: tensor.abs() for name, tensor in extractor.items()}
    return Ready(task_id, ExtractorUpdate(extractor, importance, rng.standard_normal(64).tolist()), picks)


def following(platform: Platform, task_id: int) -> TrialView:
    """The next trial of a task that has not ended."""
    trial = platform.next_trial(task_id)
    if trial is None:
        raise RuntimeError(f"The platform has no trial for task {task_id}, which has not ended.")
    return trial


def _timed(platform: Platform, name: str) -> tuple[float, float, float]:
    """Lead a task and close it; seconds until its first pick, for each other one (median), and for closing it."""
    ready = lead(platform, name)
    begin = time.perf_counter()
    platform.close_task(ready.task_id, ready.update)
    return ready.picks[0], median(ready.picks[1:]), time.perf_counter() - begin


def _copy(platform: Platform, count: int) -> None:
    """Repeat the newest task's rows, each time with an extractor version of its own."""
    with platform.store.write() as session:
        newest = session.scalars(select(TaskRow).order_by(TaskRow.id.desc()).limit(1)).one()
        head = session.get_one(ExtractorRow, newest.extractor_id)
        for number in range(count):
            extractor = _twin(session, head, head=False, weights=f"dropped {number}", importance=None)
            task = _twin(session, newest, experiment=f"copy {newest.id + number}", extractor_id=extractor.id)
            for trial in newest.trials:
                _twin(session, trial, task_id=task.id, parameter_id=None)


def _twin(session: Session, row: _Row, **changes: object) -> _Row:
    """Store a new row like this one but for the changes."""
    twin = copied(row, **changes)
    session.add(twin)
    session.flush()
    return twin


def copied(row: _Row, **changes: object) -> _Row:
    """A new row like this one but for the changes, in no session yet."""
    names = {column.key for column in inspect(type(row)).column_attrs} - {"id"}
    values: dict[str, Any] = {name: getattr(row, name) for name in names}
    return type(row)(**values | changes)


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
