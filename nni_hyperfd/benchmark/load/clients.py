"""Clients of a server, each of which leads whole tasks and keeps a record of what the server has acknowledged."""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, takewhile
from typing import TypeVar

import numpy as np
import requests

from nni_hyperfd.client import RemotePlatform
from nni_hyperfd.client.connection import Connection
from nni_hyperfd.platform import StateError, TrialView
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.task import TaskSettings
from nni_hyperfd.wire import META_FEATURE_LENGTH, Description

_T = TypeVar("_T")

BUDGET = 4
_PATIENCE = 300.0
"""Maximum number of seconds for which a client repeats a call."""
_IDS = re.compile(r"\b(\d+|[0-9a-f]{64})\b")


@dataclass
class Record:
    """What the clients of a run have seen.

    Attributes:
        seconds: method and route -> how long its answers took, the client's own repetitions included.
        results: task's id -> parameter id -> performance, for every result that the server has acknowledged.
    """

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    results: dict[int, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def took(self, route: str, seconds: float) -> None:
        """Note the time of an answer."""
        with self._lock:
            self.seconds[route].append(seconds)

    def acknowledged(self, task_id: int, parameter_id: int, performance: float) -> None:
        """Note a result that the server has taken in."""
        with self._lock:
            self.results[task_id][parameter_id] = performance


class TimedConnection(Connection):
    """A connection that notes how long each answer took.

    Args:
        address: of the server.
        token: of the tenant.
        record: where the times go.
    """

    def __init__(self, address: str, token: str, record: Record) -> None:
        super().__init__(address, lambda: token)
        self._record = record

    def send(self, method: str, place: str, body: str | None = None) -> requests.Response:
        """Send a request, and note the time of its answer."""
        begin = time.perf_counter()
        response = super().send(method, place, body)
        self._record.took(f"{method} /{_IDS.sub('{id}', place)}", time.perf_counter() - begin)
        return response


class TimedPlatform(RemotePlatform):
    """A remote platform over a `TimedConnection`."""

    def __init__(self, address: str, token: str, record: Record) -> None:
        super().__init__(address)
        self._connection = TimedConnection(address, token, record)


def run(
    address: str, tokens: list[str], space: SearchSpace, clients: int, goes_on: Callable[[int], bool], seed: int
) -> Record:
    """Let clients lead tasks at the same time, one after another each.

    Args:
        address: of the server.
        tokens: of the tenants, among whom the clients are divided.
        space: the search space of all tasks.
        clients: number of threads.
        goes_on: whether a client that has led so many tasks begins another one.
        seed: of what their data sets and trials bring.

    Raises:
        StateError: the server has not answered a client for minutes.
    """
    record = Record()

    def client(number: int) -> None:
        platform = TimedPlatform(address, tokens[number % len(tokens)], record)
        for task in takewhile(goes_on, count()):
            lead(platform, f"load-{seed}-{number}-{task}", space, np.random.default_rng([seed, number, task]), record)
        platform.close()

    with ThreadPoolExecutor(clients) as pool:
        for one in [pool.submit(client, number) for number in range(clients)]:
            one.result()
    return record


def lead(
    platform: RemotePlatform, experiment: str, space: SearchSpace, rng: np.random.Generator, record: Record
) -> int:
    """Lead a task from its opening to its end, as an advisor does; return its id.

    Every call is repeated until it is answered. What a configuration brings is drawn from `rng`.
    """
    settings = TaskSettings(budget=BUDGET)
    task_id = _persistently(lambda: platform.open_task(experiment, space, settings))
    described = Description(rng.standard_normal(META_FEATURE_LENGTH).tolist(), 64, 100, 0.5)
    _start(platform, task_id, 0)
    _persistently(lambda: platform.describe(task_id, 0, described))
    _persistently(lambda: platform.prepare(task_id))
    for parameter_id in range(1, BUDGET + 1):
        _start(platform, task_id, parameter_id)
        _observe(platform, task_id, parameter_id, float(rng.random()), record)
    return task_id


def _start(platform: RemotePlatform, task_id: int, parameter_id: int) -> TrialView:
    trial = _persistently(lambda: platform.next_trial(task_id))
    if trial is None:
        raise RuntimeError(f"task {task_id}: the server has no trial for parameter id {parameter_id}")
    _persistently(lambda: platform.start(trial.id, parameter_id))
    return trial


def _observe(platform: RemotePlatform, task_id: int, parameter_id: int, performance: float, record: Record) -> None:
    _persistently(lambda: platform.observe(task_id, parameter_id, performance))
    record.acknowledged(task_id, parameter_id, performance)
    _persistently(lambda: platform.settle(task_id))


def _persistently(call: Callable[[], _T]) -> _T:
    """Repeat a call that is not answered; a client of an advisor keeps what it says on its disk meanwhile."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return call()
        except StateError:
            if time.monotonic() > deadline:
                raise
