"""The method of HyperFD: meta-features, configuration embeddings, their losses and how both learn.

Names are loaded on first use (PEP 562), so importing this package does not import torch. Serialised weights are the
submodule `weights`. Nothing in here knows NNI, SQL or mmdet.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "RankerSettings": "settings",
    "MetaFeatureExtractor": "meta_feature",
    "gwap": "meta_feature",
    "ConfigurationEncoder": "config_encoder",
    "MLPEncoder": "config_encoder",
    "GINEncoder": "config_encoder",
    "score": "scoring",
    "lambda_rank": "losses",
    "ndcg": "losses",
    "triplet": "losses",
    "PathIntegral": "synaptic",
    "importance": "synaptic",
    "si_penalty": "synaptic",
    "fit_transform": "transform",
    "explore_exploit": "selection",
    "WeightsError": "weights",
    "ClientTask": "learning",
    "LearnedExtractor": "learning",
    "OfflineTask": "learning",
    "TaskExperience": "learning",
    "update_encoder": "learning",
    "update_extractor": "learning",
    "warm_up": "learning",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
