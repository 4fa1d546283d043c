"""One NNI trial: fine-tunes the starting detector on a face data set with the parameters that NNI proposes.

    python finetune.py --data FOLDER [--config configs/X.py] [--size 640] [--epochs N] ...

It reports AP@50 after each validation and the best one at the end, and leaves the best detector with what built it
(`detector.safetensors`, `trial.json`), from which `hyperfd best` makes one to ship. Without NNI it trains once with the
config's own parameters. A run that was killed is resumed from its last checkpoint in --work-dir. --weights and --config
name another detector to start from. To search architectures, use --config configs/retinaface_proxylessnas.py, and as
--weights what pretrain.py has made with that config. A parameter `data`
selects one of the data sets in the folder --data (`hyperfd warmup collect`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nni
from retinaface.face_dataset import FaceDataset
from retinaface.options import Options, ScriptError, run_script

import nni_hyperfd


def main(argv: list[str] | None = None) -> None:
    """Run the trial."""
    parser = Options.parser(__doc__)
    # If NNI runs a killed trial again, its output folder is the same, so the last checkpoint is found there.
    output = Path(os.environ.get("NNI_OUTPUT_DIR", "."), "work")
    parser.add_argument("--work-dir", type=Path, default=output, help="for logs, checkpoints and the tuned detector")
    arguments = parser.parse_args(argv)
    dataset = FaceDataset(Options.from_arguments(arguments))

    # Service jobs (extract, learn) end the process inside of this call, so nothing slow may come before it.
    parameters = nni_hyperfd.get_next_parameter(dataset)
    if "data" in parameters:
        dataset = part_of(dataset, parameters.pop("data"))
    nni.report_final_result(finetune(dataset, parameters, arguments.work_dir))


def part_of(dataset: FaceDataset, name: object) -> FaceDataset:
    """One of the data sets in a folder of data sets.

    Raises:
        ScriptError: `name` is not the name of a folder directly in it.
    """
    folder = dataset.options.data
    if name not in [path.name for path in folder.iterdir() if path.is_dir()]:
        raise ScriptError(f"data is {name!r}; it must be the name of a folder in {folder}.")
    return FaceDataset(replace(dataset.options, data=folder / str(name)))


def finetune(
    dataset: FaceDataset, parameters: Mapping[str, Any] | None, work_dir: Path
) -> dict[str, float | int | str]:
    """Train with the given parameters; an architecture among them inherits its weights from the starting detector.

    Args:
        dataset: the data set and the starting detector.
        parameters: values of the search space; the config's own values are used for all others.
        work_dir: folder for logs, checkpoints and the tuned detector.

    Returns:
        The trial's final result for NNI.
    """
    from retinaface.parameters import apply_parameters
    from retinaface.record import Record, trial_id
    from retinaface.training import train, without_place
    from retinaface.weight_files import weights_file

    from nni_hyperfd.privacy.traces import name_of

    base = dataset.options.load_config()
    config = apply_parameters(base, parameters)
    outcome = train(config, dataset.train, dataset.val, work_dir, _report, dataset.options.gpus)
    places = name_of(dataset.options.data), str(Path(weights_file(dataset.weights)).resolve())
    configs = (without_place(each).to_dict() for each in (base, config))
    figures = outcome.best, outcome.epochs, round(outcome.seconds, 1)
    Record(trial_id(), dict(parameters or {}), *places, *configs, *figures).write(work_dir)
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
