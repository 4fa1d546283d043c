"""A finished experiment on real images without NNI: its state, and the folder that NNI's local trials would leave."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nni_hyperfd import Platform
from nni_hyperfd.experiment.class_args import WARM_STATE
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.task import Phase, Preset, TaskSettings
from nni_hyperfd.wire import Description
from support import ROOT

ID = "abcdEF12"
SMALL = "--size 96 --eval-size 160 --epochs 2 --val-interval 1 --batch-size 8 --workers 0"


@dataclass(frozen=True)
class Finished:
    """An experiment that has ended.

    Attributes:
        data: folder of its data set.
        state: the state with its task.
        folder: NNI's folder for it.
        task: number of its task.
    """

    data: Path
    state: Path
    folder: Path
    task: int


def part_of(source: Path, target: Path, images: dict[str, int]) -> Path:
    """A data set folder with the first images of each split of another one."""
    (target / "images").mkdir(parents=True)
    for split, count in images.items():
        content = json.loads((source / f"{split}.json").read_text())
        content["images"] = content["images"][:count]
        kept = {image["id"] for image in content["images"]}
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
        (target / f"{split}.json").write_text(json.dumps(content))
        for image in content["images"]:
            shutil.copy(source / "images" / image["file_name"], target / "images")
    return target


def finish(folder: Path, source: Path, images: dict[str, int], budget: int, options: str = SMALL) -> Finished:
    """Run an experiment: the platform picks, `finetune.py` trains; only NNI between the two is left out.

    Args:
        folder: for everything that is made.
        source: a data set, of which the first images are used.
        images: number of images of each split.
        budget: number of trials.
        options: of finetune.py.
    """
    data = part_of(source, folder / "data", images)
    experiment, state = folder / "nni-experiments" / ID, folder / "state.sqlite"
    platform = Platform(state, WARM_STATE)
    space = SearchSpace.from_nni(json.loads((ROOT / "search_spaces" / "hpo.json").read_text()))
    task = platform.open_task(ID, space, TaskSettings(budget=budget, candidates=40, preset=Preset.DEFAULT))
    warm = next(known for known in platform.tasks() if known.dataset is not None and known.meta_feature is not None)
    near = np.array(warm.meta_feature) * 1.05
    number = 0
    while (trial := platform.next_trial(task)) is not None:
        platform.start(trial.id, number)
        if trial.phase is Phase.EXTRACT:
            platform.describe(task, number, Description(near.tolist(), images["train"], None, 0.08))
        else:
            work = experiment / "environments" / "local-env" / "trials" / f"trial{number}" / "work"
            best = _finetune(data, dict(trial.configuration), work, f"trial{number}", options)
            platform.observe(task, number, best)
        platform.settle(task)
        number += 1
    return Finished(data, state, experiment, task)


def _finetune(data: Path, parameters: dict[str, object], work: Path, trial: str, options: str) -> float:
    """AP@50 of one trial."""
    code = (
        "import sys, json; from pathlib import Path; import finetune\n"
        "from retinaface.face_dataset import FaceDataset; from retinaface.options import Options\n"
        "parameters, work, *argv = sys.argv[1:]\n"
        "options = Options.from_arguments(Options.parser('').parse_args(argv))\n"
        "print(finetune.finetune(FaceDataset(options), json.loads(parameters), Path(work))['default'])"
    )
    command = [sys.executable, "-c", code, json.dumps(parameters), str(work), "--data", str(data), *options.split()]
    environment = {**os.environ, "NNI_TRIAL_JOB_ID": trial}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    ended = subprocess.run(
        command, cwd=ROOT / "trial_code", env=environment, capture_output=True, text=True, check=True
    )
    return float(ended.stdout.splitlines()[-1])
