"""What a platform knows of data sets with image features: the 64 numbers of its extractor, exact or with noise.

The extractor is the one that `hyperfd warmup train` would make of the platform's own data sets in the table: warmed up
from the initial weights on their images and results, and on nothing of the clients'. A platform without data sets of
its own has the initial weights. It stays the same throughout a run: the default preset does not depend on updates that
clients send.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.benchmark.release import deviation
from nni_hyperfd.benchmark.tables import Table

PAIRS = 3000
"""Maximum number of (configuration, data set) pairs that the platform measures on its own data sets, as in the paper;
they share it equally."""


def as_known(table: Table, own: Sequence[int], epsilon: float | None, seed: int) -> Table:
    """The table with the extractor's 64 numbers as meta-features, where it has image features.

    Args:
        table: as it was measured.
        own: indices of the platform's own data sets, which are described without noise.
        epsilon: of the noise on all others (`benchmark.release`); None without noise.
        seed: of the noise.
    """
    if not table.images:
        return table
    vectors = _extracted(table, tuple(sorted(own))).copy()
    for place in range(len(table.tasks)):
        if epsilon is not None and place not in own:
            spread = deviation(epsilon, float(table.counts[place][0]))
            vectors[place] += np.random.default_rng([seed, 3, place]).normal(0, spread, vectors.shape[1])
    return replace(table, meta_features=vectors)


@cache
def _extracted(table: Table, own: tuple[int, ...]) -> NDArray[np.float32]:
    """The meta-features (tasks, 64) of all tasks by the extractor of a platform with these data sets."""
    import torch
    from torch import nn

    from nni_hyperfd.method import recipe
    from nni_hyperfd.method.config_encoder import ConfigurationEncoder
    from nni_hyperfd.method.learning import OfflineTask, warm_up
    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
    from nni_hyperfd.method.settings import RankerSettings

    images, counts = (list(map(torch.from_numpy, arrays)) for arrays in (table.images, table.counts))
    extractor: nn.Module = MetaFeatureExtractor.initial(images[0].shape[-1], recipe.INITIAL_SEED)
    if own:
        rng, known = np.random.default_rng(recipe.INITIAL_SEED), []
        for place in own:
            drawn = rng.permutation(table.measured(place))[: PAIRS // len(own)]
            performance = torch.from_numpy(table.performance[place, drawn]).float()
            known.append(OfflineTask(images[place], counts[place], table.configurations[drawn], performance))
        encoder = ConfigurationEncoder.initial(table.configurations, recipe.INITIAL_SEED)
        extractor = warm_up(extractor, encoder, known, RankerSettings(), recipe.INITIAL_SEED).extractor
    with torch.no_grad():
        vectors = [extractor(*view).numpy() for view in zip(images, counts, strict=True)]
    return np.array(vectors, dtype=np.float32)
