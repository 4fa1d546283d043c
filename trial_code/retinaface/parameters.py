"""What the search spaces choose, and where the six hyper-parameters and the architecture act in a config."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nni_hyperfd import architecture
from nni_hyperfd.architecture import Architecture
from retinaface import extended
from retinaface.extended import ParameterError
from retinaface.pipelines import find_transform

if TYPE_CHECKING:
    from mmengine.config import Config

# Those of the original RetinaFace; its crop scales start at 0.3.
DEFAULTS = {
    "optimizer": "SGD",
    "learning_rate": 1e-3,
    "min_crop_ratio": 0.3,
    "positive_iou": 0.35,
    "location_weight": 2.0,
    "negative_positive_ratio": 7,
}
OPTIMIZERS = {
    "SGD": {"type": "SGD", "momentum": 0.9, "weight_decay": 5e-4},
    "Adam": {"type": "Adam"},
}
NEGATIVE_IOU = 0.3
SEARCHABLE = "SearchableMobileNetV2"

_RANGES = {
    "learning_rate": ("above 0", lambda value: 0 < value < float("inf")),
    "min_crop_ratio": ("in (0, 1]", lambda value: 0 < value <= 1),
    "positive_iou": ("in (0, 1]", lambda value: 0 < value <= 1),
    "location_weight": ("0 or above", lambda value: 0 <= value < float("inf")),
    "negative_positive_ratio": ("a whole number, 1 or above", lambda value: value >= 1 and value == int(value)),
}


def complete(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """The hyper-parameters with defaults for those not given.

    Raises ParameterError for a name or a value that is not one of the search space.
    """
    given = dict(parameters or {})
    if unknown := sorted(given.keys() - DEFAULTS.keys()):
        known = ", ".join([*DEFAULTS, *extended.DIMENSIONS])
        raise ParameterError(f"unknown parameters {', '.join(unknown)}; this trial knows {known}.")
    values = {**DEFAULTS, **given}
    if values["optimizer"] not in OPTIMIZERS:
        raise ParameterError(f"optimizer is {values['optimizer']!r}; it must be {' or '.join(OPTIMIZERS)}.")
    for name, (wanted, holds) in _RANGES.items():
        value = values[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not holds(value):
            raise ParameterError(f"{name} is {value!r}; it must be {wanted}.")
    return values


def apply_parameters(config: Config, parameters: Mapping[str, Any] | None) -> Config:
    """A copy of the config in which each of the six hyper-parameters (defaults where not given) is set, and the
    architecture and the dimensions of `extended` if they are among the parameters.

    Anchors below IoU 0.3 are negative whatever the positive threshold is; those between are ignored.

    Raises ParameterError for a name or a value that is not one of a search space, or an architecture for a config whose
    backbone cannot be searched; ArchitectureError for an architecture over the FLOPs limit.
    """
    given = dict(parameters or {})
    chosen = {name: given.pop(name) for name in architecture.PARAMETERS if name in given}
    extensions = extended.choose(given)
    values = complete({name: value for name, value in given.items() if name not in extensions})
    config = copy.deepcopy(config)
    if chosen:
        _set_architecture(config.model.backbone, Architecture.of(chosen))
    config.optim_wrapper.optimizer = {**OPTIMIZERS[values["optimizer"]], "lr": float(values["learning_rate"])}
    find_transform(config.train_dataloader, "RandomSquareCrop").min_ratio = values["min_crop_ratio"]
    config.model.bbox_head.location_weight = values["location_weight"]
    train = config.model.train_cfg
    train.neg_pos_ratio = int(values["negative_positive_ratio"])
    train.assigner.pos_iou_thr = values["positive_iou"]
    train.assigner.neg_iou_thr = min(NEGATIVE_IOU, values["positive_iou"])
    extended.extend(config, extensions)
    return config


def _set_architecture(backbone: Config, chosen: Architecture) -> None:
    if backbone.type != SEARCHABLE:
        raise ParameterError(
            f"the config's backbone is {backbone.type}, which has one architecture only; the parameters choose one, so "
            "name configs/retinaface_proxylessnas.py with --config."
        )
    backbone.architecture = [[list(block) for block in stage] for stage in chosen.stages]
