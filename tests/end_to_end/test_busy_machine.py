"""What goes wrong when experiments start on a busy machine: they run nevertheless."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import pytest

from support.harness import Experiment

pytestmark = pytest.mark.nni

LAUNCHER_SECONDS, DISPATCHER_SECONDS = 3, 10  # NNI's limits
LATE = f"""
import time

from nni_hyperfd import HyperFDAdvisor

time.sleep({DISPATCHER_SECONDS + 2})
"""


def test_a_manager_that_answers_late_is_waited_for(experiment: Callable[..., Experiment]) -> None:
    slow = experiment({"budget": 1})
    with starting(slow) as manager:
        manager.suspend()
        time.sleep(2 * LAUNCHER_SECONDS)
        manager.resume()
    slow.wait_done()
    assert len(started(slow)) == 1


def test_a_dispatcher_that_connects_late_is_waited_for(experiment: Callable[..., Experiment]) -> None:
    slow = experiment({"budget": 1})
    (slow.folder / "late.py").write_text(LATE)
    slow.configure(tuner=slow.config["tuner"] | {"className": "late.HyperFDAdvisor"})
    slow.create().wait_done()
    assert len(started(slow)) == 1


def test_an_experiment_whose_manager_dies_at_its_start_is_started_anew(experiment: Callable[..., Experiment]) -> None:
    unlucky = experiment({"budget": 1})
    with starting(unlucky) as manager:
        manager.kill()
    assert unlucky.processes.managers() != [manager]
    unlucky.wait_done()


def test_a_tuner_that_dies_at_its_start_is_not_waited_for(experiment: Callable[..., Experiment]) -> None:
    broken = experiment({"budget": 1})
    broken.configure(tuner=broken.config["tuner"] | {"className": "no_such_module.Tuner"})
    with pytest.raises(AssertionError, match="LaunchError: the tuner has ended before it connected; .*/log has more"):
        broken.create()
    assert broken.processes.alive() == []


@contextmanager
def starting(experiment: Experiment) -> Iterator[psutil.Process]:
    """Begin to start an experiment; its manager, as soon as there is one. It is ready when the block has ended."""
    with ThreadPoolExecutor(1) as pool:
        created = pool.submit(experiment.create)
        (manager,) = experiment.wait_for("a manager", experiment.processes.managers)
        yield manager
        created.result()


def started(experiment: Experiment) -> dict[str, dict]:
    """NNI's own list of the experiments that were started."""
    return json.loads((experiment.home / "nni-experiments" / ".experiment").read_text())
