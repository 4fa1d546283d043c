"""The detector in trial_code/weights: small, of the default config, and one that finds faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mmdet.registry import MODELS
from retinaface import modules  # noqa: F401
from retinaface.build import load_detector
from retinaface.convert import load_weights
from retinaface.options import CONFIGS, Options
from retinaface.parameters import apply_parameters
from retinaface.training import validate

from nni_hyperfd.datasets import coco
from nni_hyperfd.space import PARAMETERS, ArchitectureSpace

from .conftest import TRIAL_CODE

SHIPPED = TRIAL_CODE / "weights" / "retinaface_mobilenetv2.safetensors"


def test_it_is_small_and_fits_the_default_config() -> None:
    assert SHIPPED.stat().st_size < 5_000_000
    load_detector(Options(Path()).load_config(), SHIPPED)


def test_searched_backbones_inherit_from_it() -> None:
    space = ArchitectureSpace.of({name: parameter.values for name, parameter in PARAMETERS.items()})
    config = Options(Path(), config=CONFIGS / "retinaface_proxylessnas.py").load_config()
    found = MODELS.build(apply_parameters(config, space.sample(np.random.default_rng(0))).model)
    assert load_weights(found, SHIPPED) is found


@pytest.mark.parametrize(("domain", "least"), [("fddb", 0.7), ("portrait_grey", 0.7)])
def test_it_finds_faces(real_data: Path, domain: str, least: float) -> None:
    """Floors below what was measured on more images (trial_code/weights/README.md)."""
    options = Options(real_data / domain, weights=str(SHIPPED), eval_size=360, workers=0)
    assert validate(options.load_config(), coco.load(options.data, "val")) > least
