"""Trains the detector that trials start from, and saves it as a safetensors file.

    python pretrain.py --data FOLDER [--also FOLDER ...] --out detector.safetensors [--weights imagenet] ...

The HyperFD paper trains on WIDER FACE; all folders with the same layout can be used. A run that was killed is resumed
from its last checkpoint, which is in a folder beside --out.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from retinaface.options import CONFIGS, Options, run_script

from nni_hyperfd import files
from nni_hyperfd.datasets import coco


def main(argv: list[str] | None = None) -> float:
    """Train the detector; returns its AP@50."""
    parser = Options.parser(__doc__)
    parser.set_defaults(config=CONFIGS / "retinaface_mobilenetv2.py")
    parser.add_argument("--also", type=Path, nargs="+", default=[], help="data sets to train and validate on as well")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--optimizer", default="Adam", help="SGD or Adam")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    arguments = parser.parse_args(argv)
    options = Options.from_arguments(arguments)
    return pretrain(options, arguments.also, arguments.out, arguments.optimizer, arguments.learning_rate)


def pretrain(options: Options, also: list[Path], out: Path, optimizer: str, learning_rate: float) -> float:
    """Train on one or several data sets.

    Args:
        options: first data set, weights to start from, and how to train.
        also: further data sets.
        out: file for the detector of the best validation.
        optimizer: SGD or Adam.
        learning_rate: initial learning rate.

    Returns:
        AP@50 of that detector, in [0, 1].
    """
    from retinaface.parameters import apply_parameters
    from retinaface.training import train

    config = apply_parameters(options.load_config(), {"optimizer": optimizer, "learning_rate": learning_rate})
    training, val = (
        coco.join([coco.load(folder, split, strict=options.strict) for folder in (options.data, *also)])
        for split in ("train", "val")
    )
    outcome = train(config, training, val, out.with_suffix(".work"), gpus=options.gpus)
    with files.atomic(out) as partial:
        shutil.copy(outcome.detector, partial)
    print(f"{out}: AP@50 {outcome.best:.4f} after {outcome.epochs} epochs, {outcome.seconds:.0f} s")
    return outcome.best


if __name__ == "__main__":
    run_script(main)
