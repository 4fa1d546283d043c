"""Both time limits of NNI's start are exceeded, as on a busy machine: the experiments run nevertheless."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.harness import Experiment

pytestmark = pytest.mark.nni

LAUNCHER_SECONDS, DISPATCHER_SECONDS = 3, 10  # NNI's limits
LATE = f"""
import time
from pathlib import Path

from nni_hyperfd import HyperFDAdvisor

first = Path(__file__).with_name("first")
if not first.exists():
    first.touch()
    time.sleep({DISPATCHER_SECONDS + 2})
"""


def test_a_manager_that_answers_late_is_waited_for(experiment: Callable[..., Experiment]) -> None:
    slow = experiment({"budget": 1})
    with ThreadPoolExecutor(1) as pool:
        created = pool.submit(slow.create)
        (manager,) = slow.wait_for("a manager", slow.processes.managers)
        manager.suspend()
        time.sleep(2 * LAUNCHER_SECONDS)
        manager.resume()
        created.result()
    slow.wait_done()
    assert len(started(slow)) == 1


def test_an_experiment_whose_dispatcher_connects_late_is_started_anew(experiment: Callable[..., Experiment]) -> None:
    slow = experiment({"budget": 1})
    (slow.folder / "late.py").write_text(LATE)
    slow.configure(tuner=slow.config["tuner"] | {"className": "late.HyperFDAdvisor"})
    slow.create()
    assert [process.pid for process in slow.processes.managers()] == [started(slow)[slow.id]["pid"]]
    slow.wait_done()
    first, second = sorted(started(slow).values(), key=lambda one: one["startTime"])
    assert second["id"] == slow.id and first["port"] != second["port"]


def started(experiment: Experiment) -> dict[str, dict]:
    """NNI's own list of the experiments that were started."""
    return json.loads((experiment.home / "nni-experiments" / ".experiment").read_text())
