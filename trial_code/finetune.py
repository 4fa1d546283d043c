"""One NNI trial: fine-tune the starting detector on a face data set with the parameters that NNI proposes.

    python finetune.py --data FOLDER --weights FILE [--config configs/X.py] [--size 640] [--epochs N] ...

Reports AP@50 after each validation and the best one at the end. Without NNI it trains once as the config says. A run
that was killed goes on from its last checkpoint in --work-dir. To search architectures, --config is
configs/retinaface_proxylessnas.py and --weights what pretrain.py made of it. A parameter `data` names one of the data
sets in the folder --data (`hyperfd warmup collect`).
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import nni
from retinaface.face_dataset import FaceDataset
from retinaface.job import Job, JobError, run_script

import nni_hyperfd


def main(argv: list[str] | None = None) -> None:
    parser = Job.parser(__doc__.splitlines()[0])
    # A trial that NNI runs again after a kill gets the same output folder, and so finds its last checkpoint.
    output = Path(os.environ.get("NNI_OUTPUT_DIR", "."), "work")
    parser.add_argument("--work-dir", type=Path, default=output, help="for logs, checkpoints and the tuned detector")
    arguments = parser.parse_args(argv)
    dataset = FaceDataset(Job.from_arguments(arguments))

    # NNI's service jobs (extract, learn) end the process inside this call; nothing heavy may come before it.
    parameters = nni_hyperfd.get_next_parameter(dataset)
    if "data" in parameters:
        dataset = part_of(dataset, parameters.pop("data"))
    nni.report_final_result(finetune(dataset, parameters, arguments.work_dir))


def part_of(dataset: FaceDataset, name: object) -> FaceDataset:
    """One of the data sets in a folder of them. Raises JobError if the name is not that of a folder right in it."""
    folder = dataset.job.data
    if name not in [path.name for path in folder.iterdir() if path.is_dir()]:
        raise JobError(f"data is {name!r}; it must be the name of a folder in {folder}.")
    return FaceDataset(replace(dataset.job, data=folder / name))


def finetune(dataset: FaceDataset, parameters: dict | None, work_dir: Path) -> dict[str, float | int | str]:
    """Train with these parameters (the config's own values where none are given); returns NNI's final result.

    With an architecture among them, training starts from the weights that it inherits from the dataset's detector.
    """
    from retinaface.parameters import apply_parameters
    from retinaface.training import train

    config = apply_parameters(dataset.job.load_config(), parameters)
    outcome = train(config, dataset.train, dataset.val, work_dir, _report, dataset.job.gpus)
    return {
        "default": outcome.best,
        "epochs": outcome.epochs,
        "seconds": round(outcome.seconds, 1),
        "phase": "fine-tune",
    }


def _report(ap50: float) -> None:
    nni.report_intermediate_result({"default": ap50})


if __name__ == "__main__":
    run_script(main)
