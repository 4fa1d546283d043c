"""What a platform knows of data sets with image features: the 64 numbers of its extractor, exact or as released.

The extractor is the one that `hyperfd warmup train` would make of the platform's own data sets in the table: warmed up
from the initial weights on their images and results, and on nothing of the clients'. A platform without data sets of
its own has the initial weights. It stays the same throughout a run: the default preset does not depend on updates that
clients send.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.benchmark.tables import Table
from nni_hyperfd.privacy import mechanism
from nni_hyperfd.privacy.projection import Projection, fit
from nni_hyperfd.privacy.settings import PrivacySettings

PAIRS = 3000
"""Maximum number of (configuration, data set) pairs that the platform measures on its own data sets, as in the paper;
they share it equally."""


def as_known(table: Table, own: Sequence[int], epsilon: float | None, seed: int) -> Table:
    """The table with the extractor's 64 numbers as meta-features, where it has image features.

    Args:
        table: as it was measured.
        own: indices of the platform's own data sets, which are described without noise.
        epsilon: with which all others are released (`privacy.mechanism`); None for the exact means. Without data sets
            of its own the platform has no projection, so nothing is released.
        seed: of the noise.
    """
    if not table.images:
        return table
    vectors = _image_vectors(table, tuple(sorted(own)))
    if epsilon is None:
        meta_features = [images.mean(axis=0) for images in vectors]
    elif not own:
        meta_features = [np.full(images.shape[1], np.nan) for images in vectors]
    else:
        projection = fit([vectors[place] for place in sorted(own)], "", table.images[0].shape[-1])
        meta_features = [
            projection.described(images)
            if place in own
            else _released(projection, images, float(table.counts[place][0]), epsilon, f"{seed} {place}")
            for place, images in enumerate(vectors)
        ]
    return replace(table, meta_features=np.array(meta_features, dtype=np.float32))


def _released(
    projection: Projection, vectors: NDArray[np.float32], images: float, epsilon: float, seed: str
) -> mechanism.Vectors:
    """The meta-feature (64,) of a client's data set as `privacy.release` makes it, with noise by a seed.

    Args:
        projection: of the platform's extractor.
        vectors: (n, 64), of as many images as the table has.
        images: number of the data set's images, by which the noise is scaled.
        epsilon: of the guarantee.
        seed: of the noise.
    """
    multiplier = mechanism.noise_multiplier(epsilon, PrivacySettings.delta)
    scale = multiplier * mechanism.sensitivity(projection.radius, mechanism.bucket(int(images)))
    exact = mechanism.mean(projection.bounded(vectors))
    return projection.lifted(mechanism.noised(exact, scale, random.Random(seed)))


@cache
def _image_vectors(table: Table, own: tuple[int, ...]) -> list[NDArray[np.float32]]:
    """The image vectors (n, 64) of all tasks by the extractor of a platform with these data sets."""
    import torch

    from nni_hyperfd.method import recipe
    from nni_hyperfd.method.config_encoder import ConfigurationEncoder
    from nni_hyperfd.method.learning import OfflineTask, warm_up
    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
    from nni_hyperfd.method.settings import RankerSettings

    images = list(map(torch.from_numpy, table.images))
    extractor = MetaFeatureExtractor.initial(images[0].shape[-1], recipe.INITIAL_SEED)
    if own:
        rng, known = np.random.default_rng(recipe.INITIAL_SEED), []
        for place in own:
            drawn = rng.permutation(table.measured(place))[: PAIRS // len(own)]
            performance = torch.from_numpy(table.performance[place, drawn]).float()
            known.append(OfflineTask(images[place], table.configurations[drawn], performance))
        encoder = ConfigurationEncoder.initial(table.configurations, recipe.INITIAL_SEED)
        warm = warm_up(extractor, encoder, known, RankerSettings(), recipe.INITIAL_SEED).extractor
        extractor = MetaFeatureExtractor.from_weights(warm.state_dict())
    with torch.no_grad():
        return [extractor.image_vectors(each).numpy() for each in images]
