"""Registers all modules of this package, and of mmdet, with mmdet's registries.

The configs import it through `custom_imports`, so that mmdet's own tools accept them as well.
"""

from pathlib import Path
from typing import Any

from mmdet.utils import register_all_modules
from mmengine.runner import CheckpointLoader

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
from retinaface.weight_files import read_tensors

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


@CheckpointLoader.register_scheme(prefixes=r".*\.safetensors$", force=True)
def _load_safetensors(filename: str, map_location: Any = None) -> dict[str, Any]:
    """A detector's file as a checkpoint, so that mmdet's DetInferencer and its tools load it."""
    return {"state_dict": read_tensors(Path(filename)), "meta": {"dataset_meta": dataset.FaceCocoDataset.METAINFO}}
