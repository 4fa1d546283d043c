"""Trials on another machine, through NNI's own remote training service over ssh."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from nni_hyperfd import wire
from nni_hyperfd.experiment.launch import free_port
from nni_hyperfd.method import weights
from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
from nni_hyperfd.platform import EmbeddedPlatform
from nni_hyperfd.task import Phase
from nni_hyperfd.warmup.pairs import PairFile
from nni_hyperfd.wire import ExtractJob, ExtractorUpdate
from support import TESTS, far_host
from support.harness import BIN, Experiment
from support.platform_contract import described, run_next
from support.quick_trial import score

pytestmark = [pytest.mark.nni, pytest.mark.skipif(bool(reason := far_host.missing()), reason=str(reason))]
BUDGET = 2
FEATURES = 8_000
"""Length of a feature: messages with an extractor for it come near to the limit of the wire, 16 MiB."""


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Callable[[Experiment], far_host.Machine]]:
    """Puts the trials of an experiment on a machine that has not its folder."""
    from contextlib import ExitStack

    with ExitStack() as on:

        def there(experiment: Experiment) -> far_host.Machine:
            hidden = experiment.folder / "nni-experiments"
            hidden.mkdir()
            imports = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
            environment = {"PYTHONPATH": imports, "OMP_NUM_THREADS": "1"}
            environment["HYPERFD_PRIVACY"] = os.environ["HYPERFD_PRIVACY"]
            machine = on.enter_context(far_host.machine(tmp_path / "far", environment, hidden))
            on.callback(experiment.end)  # first: NNI's manager has a connection to it
            login: dict[str, Any] = {"host": machine.address, "user": "root", "sshKeyFile": str(machine.key)}
            login["pythonPath"] = far_host.python_folder()
            service = {"platform": "remote", "machineList": [login], "nniManagerIp": machine.from_here}
            experiment.configure(trainingService=service)
            return machine

        yield there


def with_a_large_extractor(state: Path) -> None:
    """Begin a state with a task whose owner has sent an update."""
    platform = EmbeddedPlatform(state)
    task_id = described(platform, preset="paper", budget=1)
    run_next(platform, task_id, 1)
    platform.observe(task_id, 1, 0.5)
    platform.settle(task_id)
    run_next(platform, task_id, 2)
    network = MetaFeatureExtractor.initial(FEATURES, seed=3).state_dict()
    importance = {name: torch.rand_like(tensor) for name, tensor in network.items()}
    platform.close_task(task_id, ExtractorUpdate(network, importance, [0.125] * 64))
    platform.close()


def test_a_whole_task(experiment: Callable[..., Experiment], far: Callable[[Experiment], far_host.Machine]) -> None:
    """Extractors cross whole, both ways, and are checked by their sha256 (`wire`)."""
    made = experiment({"budget": BUDGET, "preset": "paper"}, f"--feature-dim {FEATURES}")
    machine = far(made)
    with_a_large_extractor(made.state)
    made.create().wait_done()
    task = made.task()
    assert [(trial.phase, trial.reason or trial.status) for trial in task.trials] == [
        (phase, "succeeded") for phase in (Phase.EXTRACT, *[Phase.FINE_TUNE] * BUDGET, Phase.LEARN)
    ]
    made.check_same_everywhere()
    given = wire.job_in(made.trial_jobs()[0]["record"])
    assert isinstance(given, ExtractJob) and given.extractor["image.weight"].shape[1] > FEATURES
    with closing(sqlite3.connect(made.folder / "nni-experiments" / str(made.id) / "db" / "nni.sqlite")) as records:
        metrics = [json.loads(json.loads(data)) for (data,) in records.execute("SELECT data FROM MetricData")]
    (answer,) = (m["hyperfd"] for m in metrics if isinstance(m, dict) and "tensors" in m.get("hyperfd", {}))
    assert len(answer["tensors"]) > 10 * 2**20
    platform = EmbeddedPlatform(made.state)
    kept, _ = platform.versions.tensors(task.extractor_id)
    platform.close()
    assert weights.dumps(kept) == weights.dumps(ExtractorUpdate.unpack(answer).extractor)
    ran = list(machine.home.glob("nni-experiments/*/environments/*/trials/*/trial.stderr"))
    assert len(ran) == 2 + BUDGET, "where they ran"
    assert not list((made.folder / "nni-experiments" / str(made.id)).glob("environments/*/trials/*"))


def test_measuring_pairs(experiment: Callable[..., Experiment], far: Callable[[Experiment], far_host.Machine]) -> None:
    """`hyperfd warmup collect`: the experiment file says where."""
    made = experiment({})
    machine = far(made)
    for name in "ab":
        (made.folder / "data" / name).mkdir(parents=True)
        (made.folder / "data" / name / "train.json").write_text("{}")
    options = ["--data", "data", "--out", "out", "--pairs", "4", "--each", "2", "--port", str(free_port())]
    made.run(BIN / "hyperfd", "warmup", "collect", "config.yml", *options)
    measured = PairFile(made.folder / "out" / "pairs.sqlite").pairs()
    assert [pair.performance for pair in measured] == [score(pair.configuration) for pair in measured]
    ran = {json.dumps(entry["parameters"], sort_keys=True) for entry in made.began()}
    assert ran == {json.dumps({"data": pair.data, **pair.configuration}, sort_keys=True) for pair in measured}
    assert len(list(machine.home.glob("nni-experiments/*/environments/*/trials/*/trial.stderr"))) == 4
