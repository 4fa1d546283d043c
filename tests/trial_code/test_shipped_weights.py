"""The detectors in trial_code/weights: small, of their configs, and ones that find faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mmdet.registry import MODELS
from retinaface import modules  # noqa: F401
from retinaface.build import load_detector
from retinaface.convert import load_weights
from retinaface.options import CONFIGS, WEIGHTS, Options
from retinaface.parameters import apply_parameters
from retinaface.training import validate

from nni_hyperfd.datasets import coco
from nni_hyperfd.space import PARAMETERS, ArchitectureSpace

HPO, NAS, DESCRIBER = (WEIGHTS / f"retinaface_{name}.safetensors" for name in ("wider", "proxylessnas", "mobilenetv2"))


def test_a_trial_without_weights_starts_from_the_wider_trained_detector() -> None:
    assert Options(Path()).require_weights() == str(HPO)


@pytest.mark.parametrize(("shipped", "most"), [(HPO, 2_000_000), (NAS, 4_000_000), (DESCRIBER, 4_000_000)])
def test_they_are_small_and_fit_the_configs_of_their_name(shipped: Path, most: int) -> None:
    assert shipped.stat().st_size < most
    load_detector(Options(Path(), config=CONFIGS / f"{shipped.stem}.py").load_config(), shipped)


def test_searched_backbones_inherit_from_it() -> None:
    space = ArchitectureSpace.of({name: parameter.values for name, parameter in PARAMETERS.items()})
    config = Options(Path(), config=CONFIGS / "retinaface_proxylessnas.py").load_config()
    found = MODELS.build(apply_parameters(config, space.sample(np.random.default_rng(0))).model)
    assert load_weights(found, NAS) is found


@pytest.mark.parametrize(
    ("shipped", "domain", "least"),
    [
        (HPO, "facemask", 0.8),
        (HPO, "toon_scooby", 0.8),
        (NAS, "facemask", 0.7),
        (NAS, "toon_scooby", 0.7),
        (DESCRIBER, "fddb", 0.7),
        (DESCRIBER, "portrait_grey", 0.7),
    ],
)
def test_they_find_faces(real_data: Path, shipped: Path, domain: str, least: float) -> None:
    """Floors below what was measured on more images (trial_code/weights/README.md)."""
    config = CONFIGS / f"{shipped.stem}.py"
    options = Options(real_data / domain, weights=str(shipped), config=config, eval_size=360, workers=0)
    assert validate(options.load_config(), coco.load(options.data, "val")) > least
