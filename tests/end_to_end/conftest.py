"""Fixtures that start real experiments and always end them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from support.harness import Experiment, before


@pytest.fixture(scope="session")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Experiment]]:
    """Makes experiments (not yet created) for tests that share them; all are stopped at the end of the session."""
    yield from _made(tmp_path_factory)


@pytest.fixture
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Experiment]]:
    """Makes experiments (not yet created) for one test."""
    yield from _made(tmp_path_factory)


def _made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Experiment]]:
    made = []

    def make(class_args: dict, trial: str = "", **options: object) -> Experiment:
        made.append(Experiment(tmp_path_factory.mktemp("experiment"), class_args, trial, **options))
        return made[-1]

    yield make
    with ThreadPoolExecutor(len(made) or 1) as pool:
        list(pool.map(Experiment.end, made))


@pytest.fixture(scope="session")
def two_data_sets(experiments: Callable[..., Experiment]) -> list[Experiment]:
    """Two experiments on two data sets, one after the other on one state; both have ended and their web UIs are up.

    With the paper's preset, whose tasks have trials of all phases.

    The first one's state lies, as it was before the second began, in the second's folder as `before.sqlite`."""
    first = experiments({"budget": 3, "preset": "paper"}, "--data 1 --hold {hold}").create()
    second = experiments({"budget": 3, "preset": "paper"}, "--data 2 --hold {hold}", state=first.state)
    for experiment in (first, second):
        if experiment is second:
            with closing(sqlite3.connect(first.state)) as now, closing(sqlite3.connect(before(second))) as copy:
                now.backup(copy)
            second.create()
        experiment.wait_event("begin", 1, 2)  # fails unless two picks run at the same time
        experiment.go("all")
        experiment.wait_done()
    return [first, second]
