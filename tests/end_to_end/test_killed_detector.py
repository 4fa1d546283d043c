"""A real fine-tuning trial that dies with the machine goes on from its last checkpoint when NNI runs it again."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nni_hyperfd.datasets import synthetic
from support import ROOT
from support.harness import Experiment

pytestmark = [pytest.mark.nni, pytest.mark.long]

EPOCHS = 40  # with a validation every fifth, too few to stop for lack of progress


def test_a_killed_trial_goes_on(experiment: Callable[..., Experiment], real_data: Path, tmp_path: Path) -> None:
    data = synthetic.make(tmp_path / "faces", "plain", images=(16, 4, 0), size=96)
    weights = real_data / "weights" / "bubbliiiing_retinaface_mobilenet0.25.pth"
    sizes = f"--size 96 --epochs {EPOCHS} --val-interval 5 --batch-size 8 --workers 0"
    command = f"finetune.py --data {data} --weights {weights} --config configs/retinaface_mobilenet025.py {sizes}"
    killed = experiment({"budget": 1}, space=json.loads((ROOT / "search_spaces" / "hpo.json").read_text()))
    killed.configure(trialCommand=f"{sys.executable} {command}", trialCodeDirectory=str(ROOT / "trial_code"))
    killed.create()

    trials = killed.folder / "nni-experiments" / killed.id / "environments" / "local-env" / "trials"
    killed.wait_for("a checkpoint", lambda: list(trials.rglob("epoch_5.pth")), 240)
    killed.processes.kill_all()
    killed.resume().wait_done(400)

    (job,) = [job for job in killed.trial_jobs() if "phase" not in job["record"]["parameters"]]
    printed = "".join(path.read_text() for path in (trials / job["trialJobId"]).glob("trial.*"))
    assert re.search(r"going on from .*epoch_\d+\.pth", printed)
    assert job["final"]["epochs"] == EPOCHS
    assert [pick.performance for pick in killed.picks()] == [job["final"]["default"]]
