"""A finished experiment on real images without NNI: its state, and the folder that NNI's local trials would leave."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

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
    """AP@50 of one trial, which runs in this process."""
    if str(ROOT / "trial_code") not in sys.path:
        sys.path.insert(0, str(ROOT / "trial_code"))
    from finetune import finetune
    from retinaface.face_dataset import FaceDataset
    from retinaface.options import Options

    arguments = Options.parser("").parse_args(["--data", str(data), *options.split()])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NNI_TRIAL_JOB_ID", trial)
        return float(finetune(FaceDataset(Options.from_arguments(arguments)), parameters, work)["default"])
