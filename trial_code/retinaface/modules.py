"""Registers all modules of this package, and of mmdet, with mmdet's registries.

The configs import it through `custom_imports`, so that mmdet's own tools accept them as well.
"""

from mmdet.utils import register_all_modules

from retinaface import (
    augment,
    backbones,
    bifpn,
    dataset,
    detector,
    head,
    hooks,
    imitation,
    loops,
    losses,
    metric,
    neck,
    runner,
    sampling,
    transforms,
    wider,
)

__all__ = [
    "augment",
    "backbones",
    "bifpn",
    "dataset",
    "detector",
    "head",
    "hooks",
    "imitation",
    "loops",
    "losses",
    "metric",
    "neck",
    "runner",
    "sampling",
    "transforms",
    "wider",
]

register_all_modules(init_default_scope=True)
