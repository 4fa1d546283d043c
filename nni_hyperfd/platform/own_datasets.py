"""The platform's own data sets (D_off): added one by one, or with what a warm-up has learned from them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from nni_hyperfd.platform.platform import Platform, keep_space
from nni_hyperfd.space import Configuration, SearchSpace
from nni_hyperfd.state.store import RefusedError, head_of
from nni_hyperfd.state.tables import ExtractorRow, OfflineDatasetRow, TaskRow, TrialRow, now
from nni_hyperfd.state.versions import PackedExtractor
from nni_hyperfd.task import Phase, Status, TaskSettings
from nni_hyperfd.wire import checked_meta_feature

if TYPE_CHECKING:
    from torch import Tensor

    from nni_hyperfd.method.learning import WarmUp
    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
    from nni_hyperfd.privacy.projection import Projection


_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class OfflineResults:
    """One of the platform's own data sets and what was measured on it.

    Attributes:
        name: of the data set.
        images: float32 (n >= 1, 3, 3, D), image features.
        counts: (2,), images and boxes.
        configurations: one or more.
        performance: of the configurations, finite, the higher the better.
    """

    name: str
    images: Tensor
    counts: Tensor
    configurations: list[Configuration]
    performance: list[float]


def add(platform: Platform, name: str, data: bytes, private: bool = False) -> None:
    """Add or replace a data set, packed as in `nni_hyperfd.method.features`.

    Args:
        platform: with the state.
        name: of the data set.
        data: its image features.
        private: whether nothing of it is ever given to a client or exported.

    Raises:
        RefusedError: the data hold something else, or come from a detector with another number of channels.
    """
    from nni_hyperfd.method import features, weights

    try:
        images, _ = features.unpack(weights.loads(data))
    except weights.WeightsError as error:
        raise RefusedError(f"offline data set {name}: {error}") from None
    for other in platform.versions.offline().values():
        if other.shape[-1] != images.shape[-1]:
            raise RefusedError(
                f"offline data set {name}: its features have {images.shape[-1]} entries, the ones in the state "
                f"have {other.shape[-1]}; extract them with the same detector, or use another state"
            )
    _check_describable(platform, name, images)
    with platform.store.write() as session:
        session.merge(OfflineDatasetRow(name=name, features=platform.store.put(session, data), private=private))
    platform.versions.described([platform.versions.head_id()])


def warm_extractor(platform: Platform, space: SearchSpace) -> MetaFeatureExtractor | None:
    """What a warm-up in a space has to begin with: the extractor of the warm-ups in other spaces.

    Returns:
        The extractor; None for an empty state.

    Raises:
        RefusedError: the state holds more than such warm-ups.
    """
    with platform.store.read() as session:
        version = _only_warm_ups(platform, session, space)
        version_id = None if version is None else version.id
    return None if version_id is None else platform.versions.extractor(version_id)


def begin_with(
    platform: Platform,
    space: SearchSpace,
    data_sets: Sequence[OfflineResults],
    warm: WarmUp,
    seed: int,
    projection: Projection | None = None,
) -> None:
    """Begin an empty state, or one with warm-ups in other spaces, with what a warm-up has learned; one transaction.

    Both networks become the newest versions, but for the extractor of a state that has one: warm it up with that
    (`warm_extractor`). The data sets become the platform's own ones, with a share of their images drawn by `seed`
    (`method.recipe.kept_images`), and closed tasks with their results.

    Args:
        platform: with the state.
        space: the search space of the results.
        data_sets: what was measured.
        warm: what was learned from it.
        seed: of the draw of images.
        projection: that clients describe their data sets by; these are described in the same way, without noise.

    Raises:
        RefusedError: there is more in the state already.
    """
    from nni_hyperfd.method import features, recipe, weights
    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor

    network = MetaFeatureExtractor.from_weights(warm.extractor.state_dict())
    rng = np.random.default_rng(seed)
    packed, described = {}, {}
    for data_set in data_sets:
        sample = recipe.kept_images(data_set.images, len(data_sets), rng)
        packed[data_set.name] = weights.dumps(features.pack(sample, data_set.counts))
        described[data_set.name] = checked_meta_feature(_meta_feature(network, data_set.images, projection))
    given = weights.dumps(warm.extractor.state_dict())
    packed_extractor = PackedExtractor(given, weights.dumps(warm.importance), weights.dumps({}))
    encoder = weights.dumps(warm.encoder.state_dict())
    known = warm_extractor(platform, space)
    if known is not None and weights.dumps(known.state_dict()) != given:
        raise RefusedError(f"state {platform.store.name}: its extractor is not the one of this warm-up; repeat it")

    with platform.store.write() as session:
        extractor, signature = _only_warm_ups(platform, session, space), keep_space(session, space)
        if extractor is None:
            parent_id = platform.versions.head(session).id
            extractor = platform.versions.add_extractor(session, parent_id, packed_extractor)
        for data_set in data_sets:
            content = platform.store.put(session, packed[data_set.name])
            session.merge(OfflineDatasetRow(name=data_set.name, features=content))
            task = _closed_task(data_set, space, described[data_set.name])
            task.space_signature, task.extractor_id = signature, extractor.id
            session.add(task)
            session.flush()
        platform.versions.add_encoder(session, space, task.id, encoder)
        extractor_id = extractor.id
    platform.versions.described([extractor_id])


def _meta_feature(extractor: MetaFeatureExtractor, images: Tensor, projection: Projection | None) -> list[float]:
    """The meta-feature of images (n, 3, 3, D) as a client would describe them without noise."""
    import torch

    with torch.no_grad():
        if projection is None:
            return cast("list[float]", extractor(images).tolist())
        return cast("list[float]", projection.described(extractor.image_vectors(images).numpy()).tolist())


def _closed_task(data_set: OfflineResults, space: SearchSpace, meta_feature: tuple[float, ...]) -> TaskRow:
    """The data set as a task, with its results."""
    budget = len(data_set.performance)
    return TaskRow(
        experiment=f"warm-up {data_set.name} ({space.label})",
        dataset=data_set.name,
        settings=TaskSettings(budget=budget, candidates=max(budget, TaskSettings.candidates), service=False),
        meta_feature=list(meta_feature),
        num_images=int(data_set.counts[0]),
        num_boxes=int(data_set.counts[1]),
        closed=now(),
        learned=now(),
        trials=[
            TrialRow(
                phase=Phase.IMPORT,
                status=Status.SUCCEEDED,
                configuration=configuration,
                performance=performance,
                ended=now(),
            )
            for configuration, performance in zip(data_set.configurations, data_set.performance, strict=True)
        ],
    )


def renew_extractor(platform: Platform, source: Path) -> None:
    """Take over the extractor of another state, if an upgrade has dropped this one's and that takes the same features.

    The platform's own data sets are described by it anew. The other state is left as it is.
    """
    found = head_of(source) if _lacks_extractor(platform) else None
    if found is None:
        return
    import torch

    from nni_hyperfd.method import weights
    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
    from nni_hyperfd.privacy.release import Extractor, projection_for
    from nni_hyperfd.privacy.settings import PrivacySettings

    try:
        network = MetaFeatureExtractor.from_weights(weights.loads(found[0]))
    except weights.WeightsError:
        return  # of an earlier format
    data_sets = {name: images for name, (_, images) in platform.versions.offline_by_name().items()}
    if any(images.shape[-1] != network.feature_dim for images in data_sets.values()):
        return
    packed = PackedExtractor(*found, weights.dumps(platform.versions.describe(network)))
    projection = projection_for(Extractor(weights.sha256(found[0])), network.feature_dim, PrivacySettings())
    with torch.no_grad():
        described = {name: _meta_feature(network, images, projection) for name, images in data_sets.items()}
    with platform.store.write() as session:
        head = platform.versions.head(session)
        if head.weights is not None:
            return
        version = platform.versions.add_extractor(session, head.id, packed)
        for task in session.scalars(select(TaskRow).where(TaskRow.dataset.in_(list(described)))):
            task.extractor_id, task.meta_feature = version.id, described[task.dataset or ""]
    _logger.warning(
        "State %s: its extractor was of an earlier format, so it has taken over that of %s; data sets that were "
        "described before are compared by their results alone.",
        platform.store.name,
        source,
    )


def _lacks_extractor(platform: Platform) -> bool:
    """Whether there was a warm-up whose extractor is gone: only an upgrade leaves its results and data sets."""
    with platform.store.read() as session:
        head = session.scalar(select(ExtractorRow).where(ExtractorRow.head))
        own = select(TaskRow.id).join(OfflineDatasetRow, TaskRow.dataset == OfflineDatasetRow.name).limit(1)
        return head is not None and head.weights is None and session.scalar(own) is not None


def _only_warm_ups(platform: Platform, session: Session, space: SearchSpace) -> ExtractorRow | None:
    """The extractor version of a state with warm-ups in other spaces alone; None for an empty state."""
    extractor = session.scalar(select(ExtractorRow).where(ExtractorRow.head))
    tasks = session.execute(select(TaskRow.space_signature, TaskRow.dataset)).all()
    if extractor is None and not tasks:
        return None
    own = [task for task in tasks if task.space_signature == space.signature or task.dataset is None]
    if own or not tasks:
        raise RefusedError(
            f"state {platform.store.name}: it holds more than warm-ups in other spaces; name a new file for this one"
        )
    return extractor


def _check_describable(platform: Platform, name: str, images: Tensor) -> None:
    """Check that the newest extractor makes a finite meta-feature of a data set."""
    import torch

    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
    from nni_hyperfd.method.recipe import INITIAL_SEED

    extractor = platform.versions.extractor()
    try:
        with torch.no_grad():
            described = (extractor or MetaFeatureExtractor.initial(images.shape[-1], INITIAL_SEED))(images)
    except ValueError as error:
        raise RefusedError(f"offline data set {name}: {error}") from None
    if not described.isfinite().all():
        raise RefusedError(f"offline data set {name}: its features are out of range")
