"""Trains the detector that trials start from, and saves it as a safetensors file.

    python pretrain.py --data FOLDER [--also FOLDER ...] --out detector.safetensors [--weights imagenet] ...

The HyperFD paper trains on WIDER FACE; all folders with the same layout can be used. A run that was killed is resumed
from its last checkpoint, which is in a folder beside --out.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface.options import CONFIGS, Options, ScriptError, run_script

from nni_hyperfd import files
from nni_hyperfd.datasets import coco

if TYPE_CHECKING:
    from mmdet.models import BaseDetector


def main(argv: list[str] | None = None) -> float:
    """Train the detector; returns its AP@50."""
    parser = Options.parser(__doc__)
    parser.set_defaults(config=CONFIGS / "retinaface_mobilenetv2.py")
    parser.add_argument("--also", type=Path, nargs="+", default=[], help="data sets to train and validate on as well")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--optimizer", default="Adam", help="SGD or Adam")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--teacher", type=Path, help="config of a detector to imitate, which comes with weights")
    parser.add_argument("--transplant", action="store_true", help="begin with the teacher's neck and head")
    parser.add_argument("--architectures", action="store_true", help="train random architectures beside the largest")
    parser.add_argument("--average", action="store_true", help="write the mean of the weights before and after")
    arguments = parser.parse_args(argv)
    options = Options.from_arguments(arguments)
    if arguments.average and options.weights is None:
        raise ScriptError("--average needs the detector that training starts from, --weights.")
    training = {"optimizer": arguments.optimizer, "learning_rate": arguments.learning_rate}
    return pretrain(options, arguments.also, arguments.out, training, imitation(arguments), arguments.average)


def imitation(arguments: argparse.Namespace) -> dict[str, Any]:
    """Changes to the model of the config by which it imitates the teacher that the arguments name, if they do.

    Raises:
        ScriptError: there is an option that needs a teacher, but none; or the teacher comes without weights.
    """
    if arguments.teacher is None:
        if arguments.transplant or arguments.architectures:
            raise ScriptError("--transplant and --architectures need the config of a detector to imitate, --teacher.")
        return {}
    teacher = Options(arguments.data, config=arguments.teacher).with_start().load_config().model
    choices = {name: getattr(arguments, name) for name in ("transplant", "architectures")}
    return {"type": "Imitation", "teacher": teacher, **choices}


def pretrain(
    options: Options,
    also: list[Path],
    out: Path,
    training: Mapping[str, Any],
    model: Mapping[str, Any] | None = None,
    average: bool = False,
) -> float:
    """Train on one or several data sets.

    Args:
        options: first data set, weights to start from, and how to train.
        also: further data sets.
        out: file for the detector of the best validation.
        training: optimizer and initial learning rate, as parameters of a trial.
        model: changes to the model of the config.
        average: write the mean of that detector's weights and of those that training started from, which finds most of
            what either finds (Wortsman et al. 2022, Robust fine-tuning of zero-shot models).

    Returns:
        AP@50 of the trained detector, in [0, 1].
    """
    from retinaface.build import load_detector
    from retinaface.parameters import apply_parameters
    from retinaface.training import train
    from retinaface.weight_files import save_detector

    config = apply_parameters(options.load_config(), training)
    config.model.update(model or {})
    train_split, val_split = (
        coco.join([coco.load(folder, split, strict=options.strict) for folder in (options.data, *also)])
        for split in ("train", "val")
    )
    before = load_detector(config, str(options.weights)) if average else None
    outcome = train(config, train_split, val_split, out.with_suffix(".work"), gpus=options.gpus)
    if before is None:
        with files.atomic(out) as partial:
            shutil.copy(outcome.detector, partial)
    else:
        save_detector(mean_of(before, load_detector(config, outcome.detector)), out)
    averaged = ", before the average was taken" if average else ""
    print(f"{out}: AP@50 {outcome.best:.4f} after {outcome.epochs} epochs, {outcome.seconds:.0f} s{averaged}")
    return outcome.best


def mean_of(first: BaseDetector, second: BaseDetector) -> BaseDetector:
    """The detector whose weights are the means of those of two others, of which the first is changed."""
    others = second.state_dict()
    for name, tensor in first.state_dict().items():
        if tensor.is_floating_point():  # not the number of batches that a normalisation has seen
            tensor.add_(others[name]).div_(2)
    return first


if __name__ == "__main__":
    run_script(main)
