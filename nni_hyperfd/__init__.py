"""HyperFD for NNI: privacy-preserving online AutoML for domain-specific face detection.

The public names are loaded on first use (PEP 562). NNI gives a tuner ten seconds from its start to its connection,
so importing this package must cost next to nothing: in particular it must not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nni_hyperfd.experiment.advisor import HyperFDAdvisor
    from nni_hyperfd.experiment.trial import Dataset, get_next_parameter
    from nni_hyperfd.experiment.tuner import HyperFDTuner
    from nni_hyperfd.platform import Platform

__version__ = "0.1.0"
__all__ = ["Dataset", "HyperFDAdvisor", "HyperFDTuner", "Platform", "get_next_parameter"]

_HOMES = {
    "Dataset": "experiment.trial",
    "HyperFDAdvisor": "experiment.advisor",
    "HyperFDTuner": "experiment.tuner",
    "Platform": "platform",
    "get_next_parameter": "experiment.trial",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
