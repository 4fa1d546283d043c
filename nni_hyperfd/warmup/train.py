"""The paper's warm-up: both networks learn jointly from what was measured on the platform's own data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nni_hyperfd.platform.own_datasets import OfflineResults
from nni_hyperfd.space import SearchSpace, SpaceError
from nni_hyperfd.task import Status
from nni_hyperfd.warmup.pairs import PairFile

if TYPE_CHECKING:
    from nni_hyperfd.method.learning import WarmUp
    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
    from nni_hyperfd.privacy.projection import Projection


class TrainError(ValueError):
    """What was measured, or described, cannot be learned from; the message is for its user."""


def read(pairs: PairFile, folder: Path, space: SearchSpace) -> list[OfflineResults]:
    """Every sub-data-set with a result, by name.

    Args:
        pairs: the measured pairs.
        folder: with the features of each sub-data-set in NAME.safetensors.
        space: the search space of the pairs.

    Raises:
        TrainError: nothing was measured, or in another space; features are missing, damaged or not of one width.
    """
    from nni_hyperfd.method import features, weights

    measured = [pair for pair in pairs.pairs() if pair.status is Status.SUCCEEDED]
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
        performance = [pair.performance for pair in own if pair.performance is not None]
        data_sets.append(OfflineResults(name, images, counts, configurations, performance))
    return data_sets


def train(
    data_sets: Sequence[OfflineResults], space: SearchSpace, seed: int, extractor: MetaFeatureExtractor | None = None
) -> WarmUp:
    """Train both networks from their first weights.

    Args:
        data_sets: what was measured.
        space: the search space.
        seed: of everything random.
        extractor: one that is in use and stays as it is; then the encoder alone is trained.

    Raises:
        TrainError: the data cannot be learned from, or are of another width than the extractor.
    """
    import torch

    from nni_hyperfd.method.config_encoder import ConfigurationEncoder
    from nni_hyperfd.method.learning import OfflineTask, warm_up
    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
    from nni_hyperfd.method.recipe import INITIAL_SEED
    from nni_hyperfd.method.settings import RankerSettings

    first = extractor or MetaFeatureExtractor.initial(data_sets[0].images.shape[-1], INITIAL_SEED)
    encoder = ConfigurationEncoder.initial(space.example, INITIAL_SEED)
    try:
        tasks = [
            OfflineTask(one.images, space.encode(one.configurations), torch.tensor(one.performance))
            for one in data_sets
        ]
        return warm_up(first, encoder, tasks, RankerSettings(), seed, frozen=extractor is not None)
    except (ValueError, FloatingPointError) as error:
        raise TrainError(str(error)) from None


def projection_of(data_sets: Sequence[OfflineResults], warm: WarmUp, path: Path) -> Projection:
    """The projection by which clients describe their data sets for an extractor, made from these data sets' images.

    Args:
        data_sets: what the warm-up has learned from.
        warm: what it has learned.
        path: file to keep it in. One of the same extractor, by a warm-up in another space, stays as it is.

    Raises:
        TrainError: the images are all alike, or the file is something else.
    """
    import torch

    from nni_hyperfd.method import weights
    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
    from nni_hyperfd.privacy import projection

    digest = weights.sha256(weights.dumps(warm.extractor.state_dict()))
    try:
        if path.exists() and (known := projection.load(path)).extractor == digest:
            return known
        extractor = MetaFeatureExtractor.from_weights(warm.extractor.state_dict())
        with torch.no_grad():
            vectors = [extractor.image_vectors(one.images).numpy() for one in data_sets]
        made = projection.fit(vectors, digest, extractor.feature_dim)
    except projection.ProjectionError as error:
        raise TrainError(str(error)) from None
    projection.save(made, path)
    return made
