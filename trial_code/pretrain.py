"""Train the detector that the trials start from, and save it as safetensors.

    python pretrain.py --data FOLDER [--also FOLDER ...] --out detector.safetensors [--weights imagenet] ...

The paper's data is WIDER FACE; any folders in the same layout will do. A run that was killed goes on from its last
checkpoint, in a folder beside --out.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from retinaface.job import Job, run_script
from retinaface.parameters import apply_parameters
from retinaface.training import train

from nni_hyperfd.datasets import coco


def main(argv: list[str] | None = None) -> float:
    parser = Job.parser(__doc__.splitlines()[0])
    parser.add_argument("--also", type=Path, nargs="+", default=[], help="data sets to train and validate on as well")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--optimizer", default="Adam", help="SGD or Adam")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    arguments = parser.parse_args(argv)
    job = Job.from_arguments(arguments)
    return pretrain(job, arguments.also, arguments.out, arguments.optimizer, arguments.learning_rate)


def pretrain(job: Job, also: list[Path], out: Path, optimizer: str = "Adam", learning_rate: float = 2e-3) -> float:
    """Write the detector with the best validation to `out`; returns its AP@50."""
    config = apply_parameters(job.load_config(), {"optimizer": optimizer, "learning_rate": learning_rate})
    folders = [job.data, *also]
    splits = [
        coco.join([coco.load(folder, split, strict=job.strict) for folder in folders]) for split in ("train", "val")
    ]
    outcome = train(config, *splits, out.with_suffix(".work"), gpus=job.gpus)
    shutil.copy(outcome.detector, out)
    print(f"{out}: AP@50 {outcome.best:.4f} after {outcome.epochs} epochs, {outcome.seconds:.0f} s")
    return outcome.best


if __name__ == "__main__":
    run_script(main)
