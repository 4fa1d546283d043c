"""The paper's warm-up: both networks learn jointly from what was measured on the platform's own data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nni_hyperfd.platform.platform import OfflineResults
from nni_hyperfd.space.search_space import SearchSpace, SpaceError
from nni_hyperfd.warmup.pairs import PairFile

if TYPE_CHECKING:
    from nni_hyperfd.method.learning import WarmUp
    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor

_INITIAL_SEED = 0  # the first weights are those that a cold start has


class TrainError(ValueError):
    """What was measured, or described, cannot be learned from; the message is for its user."""


def read(pairs: PairFile, folder: Path, space: SearchSpace) -> list[OfflineResults]:
    """Every sub-data-set with a result, by name, its features read from ``folder/NAME.safetensors``.

    Raises:
        TrainError: nothing was measured, or in another space; features are missing, damaged or not of one width.
    """
    from nni_hyperfd.method import features, weights

    measured = [pair for pair in pairs.pairs() if pair.status == "succeeded"]
    if not measured:
        raise TrainError(f"{pairs.path}: no pair is measured yet; run 'hyperfd warmup collect'")
    data_sets: list[OfflineResults] = []
    for name in sorted({pair.data for pair in measured}):
        file = folder / f"{name}.safetensors"
        try:
            images, counts = features.unpack(weights.loads(file.read_bytes()))
        except OSError as error:
            raise TrainError(f"{file}: {error.strerror}; trial_code/describe.py --whole writes it") from None
        except weights.WeightsError as error:
            raise TrainError(f"{file}: {error}") from None
        if data_sets and data_sets[0].images.shape[-1] != images.shape[-1]:
            raise TrainError(
                f"{file}: its features have {images.shape[-1]} entries, those of {data_sets[0].name} have "
                f"{data_sets[0].images.shape[-1]}; describe all with the same detector"
            )
        own = [pair for pair in measured if pair.data == name]
        try:
            configurations = [space.canonical(pair.configuration) for pair in own]
        except SpaceError as error:
            raise TrainError(f"{pairs.path}: it was measured in another search space: {error}") from None
        data_sets.append(OfflineResults(name, images, counts, configurations, [pair.performance for pair in own]))
    return data_sets


def train(
    data_sets: Sequence[OfflineResults], space: SearchSpace, seed: int, extractor: MetaFeatureExtractor | None = None
) -> WarmUp:
    """Both networks, from their first weights; with an ``extractor`` that is in use, the encoder alone.

    Raises:
        TrainError: the data cannot be learned from, or are of another width than the extractor.
    """
    import torch

    from nni_hyperfd.method import learning
    from nni_hyperfd.method.config_encoder import MLPEncoder
    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
    from nni_hyperfd.method.settings import RankerSettings

    frozen = extractor is not None
    extractor = extractor or MetaFeatureExtractor.initial(data_sets[0].images.shape[-1], _INITIAL_SEED)
    encoder = MLPEncoder.initial(space.dim, _INITIAL_SEED)
    try:
        tasks = [
            learning.OfflineTask(
                one.images,
                one.counts,
                torch.from_numpy(space.encode(one.configurations)),
                torch.tensor(one.performance),
            )
            for one in data_sets
        ]
        return learning.warm_up(extractor, encoder, tasks, RankerSettings(), seed, frozen=frozen)
    except (ValueError, FloatingPointError) as error:
        raise TrainError(str(error)) from None
