"""Applies the parameters of a trial to a config: six hyper-parameters, an architecture, and those of `extended`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from nni_hyperfd.space.architecture import PARAMETERS, Architecture
from retinaface import extended
from retinaface.extended import ParameterError
from retinaface.pipelines import find_transform

if TYPE_CHECKING:
    from mmengine.config import Config

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"type": "SGD", "momentum": 0.9, "weight_decay": 5e-4},
    "Adam": {"type": "Adam"},
}
NEGATIVE_IOU = 0.3
SEARCHABLE = "SearchableMobileNetV2"

_RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "learning_rate": ("above 0", lambda value: 0 < value < float("inf")),
    "min_crop_ratio": ("in (0, 1]", lambda value: 0 < value <= 1),
    "positive_iou": ("in (0, 1]", lambda value: 0 < value <= 1),
    "location_weight": ("0 or above", lambda value: 0 <= value < float("inf")),
    "negative_positive_ratio": ("a whole number, 1 or above", lambda value: value >= 1 and value == int(value)),
}
NAMES = ("optimizer", *_RANGES)


def check(parameters: Mapping[str, Any]) -> None:
    """Check the names and values of hyper-parameters.

    Raises:
        ParameterError: a name is not one of the six hyper-parameters', or its value is out of range.
    """
    if unknown := sorted(parameters.keys() - set(NAMES)):
        known = ", ".join([*NAMES, *extended.DIMENSIONS])
        raise ParameterError(f"unknown parameters {', '.join(unknown)}; this trial knows {known}.")
    if parameters.get("optimizer", "SGD") not in OPTIMIZERS:
        raise ParameterError(f"optimizer is {parameters['optimizer']!r}; it must be {' or '.join(OPTIMIZERS)}.")
    for name in filter(parameters.__contains__, _RANGES):
        value, (wanted, holds) = parameters[name], _RANGES[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not holds(value):
            raise ParameterError(f"{name} is {value!r}; it must be {wanted}.")


def apply_parameters(config: Config, parameters: Mapping[str, Any] | None) -> Config:
    """A copy of a config with the parameters of a trial; whatever they do not name is not changed.

    Anchors below an IoU of 0.3 are negative for every `positive_iou`; those between are ignored.

    Args:
        config: the config; not changed.
        parameters: values of any search space in search_spaces/.

    Raises:
        ParameterError: a name or a value is invalid, or an architecture is chosen for a config whose backbone has one
            architecture only.
        ArchitectureError: the architecture is incomplete or over the FLOPs limit.
    """
    given = dict(parameters or {})
    chosen = {name: given.pop(name) for name in PARAMETERS if name in given}
    extensions = extended.choose(given)
    values = {name: value for name, value in given.items() if name not in extensions}
    check(values)
    config = copy.deepcopy(config)
    if chosen:
        _set_architecture(config.model.backbone, Architecture.of(chosen))
    for name, value in values.items():
        _set(config, name, value)
    extended.extend(config, extensions)
    return config


def _set(config: Config, name: str, value: Any) -> None:
    train = config.model.train_cfg
    match name:
        case "optimizer":
            config.optim_wrapper.optimizer = {**OPTIMIZERS[value], "lr": config.optim_wrapper.optimizer["lr"]}
        case "learning_rate":
            config.optim_wrapper.optimizer["lr"] = float(value)
        case "min_crop_ratio":
            find_transform(config.train_dataloader, "RandomSquareCrop").min_ratio = value
        case "positive_iou":
            train.assigner.pos_iou_thr = value
            train.assigner.neg_iou_thr = min(NEGATIVE_IOU, value)
        case "location_weight":
            config.model.bbox_head.location_weight = value
        case "negative_positive_ratio":
            train.neg_pos_ratio = int(value)


def _set_architecture(backbone: Config, chosen: Architecture) -> None:
    if backbone.type != SEARCHABLE:
        raise ParameterError(
            f"the config's backbone is {backbone.type}, which has one architecture only; the parameters choose one, so "
            "name configs/retinaface_proxylessnas.py with --config."
        )
    backbone.architecture = [[list(block) for block in stage] for stage in chosen.stages]
