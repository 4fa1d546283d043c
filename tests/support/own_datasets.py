"""Made-up data sets of the platform's own, and states that begin with a warm-up on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from support.made_up import MadeUpDataset

if TYPE_CHECKING:
    from nni_hyperfd.method.learning import WarmUp
    from nni_hyperfd.platform.own_datasets import OfflineResults
    from nni_hyperfd.space import Configuration, SearchSpace


def packed(seed: int = 0, dim: int = 12, count: int = 20, huge: bool = False) -> bytes:
    """The file of a data set, as trial_code/describe.py writes it; huge: numbers whose mean overflows."""
    import torch

    from nni_hyperfd.method import features, weights

    images = torch.randn(count, 3, 3, dim, generator=torch.Generator().manual_seed(seed))
    return weights.dumps(features.pack(torch.full_like(images, 3e38) if huge else images, torch.tensor([20.0, 31.0])))


def results(space: SearchSpace, score: Callable[[Configuration], float], sets: int) -> list[OfflineResults]:
    """Data sets s0, s1, ... with five results each."""
    import torch

    from nni_hyperfd.platform.own_datasets import OfflineResults

    data_sets = []
    for number in range(sets):
        configurations = space.sample(5, np.random.default_rng(number))
        images, counts = MadeUpDataset(number).image_features(20, 0), torch.tensor([20.0, 31.0])
        data_sets.append(OfflineResults(f"s{number}", images, counts, configurations, [*map(score, configurations)]))
    return data_sets


def untaught(space: SearchSpace, seed: int = 77) -> WarmUp:
    """A warm-up that has learned nothing."""
    import torch

    from nni_hyperfd.method import MetaFeatureExtractor
    from nni_hyperfd.method.config_encoder import ConfigurationEncoder
    from nni_hyperfd.method.learning import WarmUp

    extractor = MetaFeatureExtractor.initial(12, seed)
    importance = {name: torch.ones_like(tensor) for name, tensor in extractor.state_dict().items()}
    return WarmUp(extractor, ConfigurationEncoder.initial(space.example, seed), importance, [])


def begin_warm(path: Path, space: SearchSpace, score: Callable[[Configuration], float], sets: int) -> None:
    """A state that begins with a warm-up, whose networks have learned nothing: what they know is not tested."""
    from nni_hyperfd.platform import Platform, own_datasets

    platform = Platform(path)
    own_datasets.begin_with(platform, space, results(space, score, sets), untaught(space), 0)
    platform.store.close()
