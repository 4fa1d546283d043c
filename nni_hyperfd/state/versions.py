"""What has been learned, version by version: extractors, the maps between them, configuration encoders."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from sqlalchemy import Select, delete, func, or_, select, union
from sqlalchemy.orm import Session

from nni_hyperfd.space.search_space import SearchSpace
from nni_hyperfd.state import store as tables
from nni_hyperfd.state.store import Store
from nni_hyperfd.wire import META_FEATURE_LENGTH, ExtractorUpdate, ReportError

if TYPE_CHECKING:
    from torch import Tensor

    from nni_hyperfd.method.config_encoder import MLPEncoder
    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor

_logger = logging.getLogger(__name__)

_INITIAL_SEED = 0  # of every network's first weights, here and in the trial


class Versions:
    """The versions as one transaction sees them; what is added becomes durable with it."""

    def __init__(self, store: Store, session: Session) -> None:
        self._store, self._session = store, session

    # -- extractors ----------------------------------------------------------------------------------------------------

    def head(self) -> tables.Extractor:
        """The newest extractor version; the initial one is made on first use."""
        head = self._session.scalar(select(tables.Extractor).where(tables.Extractor.head))
        if head is None:
            head = tables.Extractor(head=True)
            self._session.add(head)
            self._session.flush()
        return head

    def add_extractor(self, parent_id: int, update: ExtractorUpdate) -> tables.Extractor:
        """Keep a client's update of version `parent_id` as a version.

        It becomes the newest one if it was made from that; where another task was faster, it serves the meta-feature
        of its own task only.

        Raises:
            ReportError: the update has other names or shapes than the newest version.
        """
        from nni_hyperfd.method import weights

        head = self.head()
        try:
            template = self._extractor(head, update.extractor).state_dict()
            weights.check_like(update.extractor, template, "extractor update")
            weights.check_like(update.importance, template, "extractor importance")
        except weights.WeightsError as error:
            raise ReportError(str(error)) from None
        if len(template["image.bias"]) != META_FEATURE_LENGTH:
            raise ReportError(f"extractor update: its meta-features do not have {META_FEATURE_LENGTH} numbers")
        extractor = tables.Extractor(
            parent_id=parent_id,
            head=parent_id == head.id,
            weights=self._put(update.extractor),
            importance=self._put(update.importance),
        )
        if extractor.head:
            head.head = False
        else:
            _logger.warning(
                "Another experiment has updated the extractor since version %d; this update of it is kept for its "
                "task's meta-feature and does not become the newest version.",
                parent_id,
            )
        self._session.add(extractor)
        self._session.flush()
        return extractor

    def start_anew(self) -> tables.Extractor:
        """An initial extractor as the newest version, for a detector of another width. What was described by earlier
        ones means nothing to it: the server's own data sets are dropped, and the meta-features of their tasks."""
        self.head().head = False
        extractor = tables.Extractor(head=True)
        self._session.add(extractor)
        self._session.execute(delete(tables.OfflineDataset))
        for task in self._session.scalars(select(tables.Task)):
            task.meta_feature = None
        self._session.flush()
        return extractor

    def extractor(self) -> MetaFeatureExtractor:
        """The newest version as a module."""
        return self._extractor(self.head())

    def extractor_tensors(self, version_id: int) -> dict[str, Tensor]:
        """``extractor.*`` and ``importance.*`` of a version; empty for the initial one."""
        from nni_hyperfd.method import weights

        version = self._session.get_one(tables.Extractor, version_id)
        tensors = {}
        for prefix, digest in (("extractor", version.weights), ("importance", version.importance)):
            if digest is not None:
                loaded = weights.loads(self._store.get(self._session, digest))
                tensors |= {f"{prefix}.{name}": tensor for name, tensor in loaded.items()}
        return tensors

    # -- meta-features and the maps between versions -------------------------------------------------------------------

    def meta_features(self, tasks: Iterable[tables.Task], target_id: int) -> dict[int, Tensor]:
        """Task's id -> its stored meta-feature (64,), carried over to version `target_id` (equation 5); tasks without
        one are left out."""
        return {
            task.id: self.transform(task.meta_feature, task.extractor_id, target_id)
            for task in tasks
            if task.meta_feature is not None
        }

    def transform(self, meta_feature: list[float], source_id: int, target_id: int) -> Tensor:
        """A meta-feature (64,) of version `source_id` as version `target_id` would have made it: carried over by the
        map that fits both versions' meta-features of the server's own data sets (equation 4)."""
        import torch

        from nni_hyperfd.method.transform import fit_transform

        h = torch.tensor(meta_feature)
        if source_id == target_id:
            return h
        source, target = self.describe_offline(source_id), self.describe_offline(target_id)
        both = sorted(source.keys() & target.keys())
        if not both:
            return h
        return fit_transform(torch.stack([source[k] for k in both]), torch.stack([target[k] for k in both])) @ h

    def offline(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The server's own data sets (D_off), in the order of their names: sha256 of the features -> image features
        (n, 3, 3, D) and counts (2,)."""
        from nni_hyperfd.method import features, weights

        digests = self._session.scalars(select(tables.OfflineDataset.features).order_by(tables.OfflineDataset.name))
        return {digest: features.unpack(weights.loads(self._store.get(self._session, digest))) for digest in digests}

    def describe_offline(self, version_id: int) -> dict[str, Tensor]:
        """Meta-features (64,) of the offline data sets under a version, by the sha256 of their features; of a version
        whose weights have been dropped those that it had described by then.

        Raises:
            ReportError: a data set's numbers are so large that its meta-feature is not finite.
        """
        import torch

        from nni_hyperfd.method import weights

        version = self._session.get_one(tables.Extractor, version_id)
        described = weights.loads(version.described) if version.described else {}
        digests = set(self._session.scalars(select(tables.OfflineDataset.features)))
        if digests <= described.keys() or not self._has_weights(version):
            return described
        extractor, offline = self._extractor(version), self.offline()
        with torch.no_grad():
            described |= {digest: extractor(*offline[digest]) for digest in offline.keys() - described.keys()}
        if not all(h.isfinite().all() for h in described.values()):
            raise ReportError("its counts or features are out of range")
        version.described = weights.dumps(described)
        return described

    def _extractor(self, version: tables.Extractor, like: Mapping[str, Tensor] | None = None) -> MetaFeatureExtractor:
        """A version as a module. The initial one takes its input width from the offline data, else from `like`."""
        from nni_hyperfd.method import weights
        from nni_hyperfd.method.meta_feature import MetaFeatureExtractor

        if version.weights is not None:
            return MetaFeatureExtractor.from_weights(weights.loads(self._store.get(self._session, version.weights)))
        if offline := self.offline():
            images, _ = next(iter(offline.values()))
            return MetaFeatureExtractor.initial(images.shape[-1], _INITIAL_SEED)
        return MetaFeatureExtractor.from_weights(like or {})

    # -- configuration encoders ----------------------------------------------------------------------------------------

    def encoder(self, space: SearchSpace) -> tuple[MLPEncoder, int]:
        """The space's newest configuration encoder and the extractor version that it was trained towards."""
        from nni_hyperfd.method import weights
        from nni_hyperfd.method.config_encoder import MLPEncoder

        encoder = MLPEncoder.initial(space.dim, _INITIAL_SEED)
        newest = self._session.scalar(
            select(tables.Ranker)
            .where(tables.Ranker.space_signature == space.signature)
            .order_by(tables.Ranker.id.desc())
            .limit(1)
        )
        if newest is None:
            return encoder, self.head().id
        encoder.load_state_dict(weights.loads(self._store.get(self._session, newest.weights)))
        return encoder, newest.extractor_id

    def add_encoder(self, space: SearchSpace, task_id: int, encoder: MLPEncoder) -> None:
        """Keep an encoder that was trained on a task, towards the newest extractor."""
        self._session.add(
            tables.Ranker(
                space_signature=space.signature,
                task_id=task_id,
                extractor_id=self.head().id,
                weights=self._put(encoder.state_dict()),
            )
        )

    # -- what may go ---------------------------------------------------------------------------------------------------

    def drop_unneeded(self) -> None:
        """Drop the weights that no task can need any more: those of extractors that are neither the newest nor an open
        task's, of encoders that are not their space's newest, of offline data sets that were replaced."""
        extractor, ranker = tables.Extractor, tables.Ranker
        opened = select(tables.Task.extractor_id).where(tables.Task.closed.is_(None))
        in_use = or_(extractor.head, extractor.id.in_(opened))
        for version in self._session.scalars(select(extractor).where(~in_use, extractor.weights.in_(_blobs()))):
            self.describe_offline(version.id)  # the last chance
        newest = select(func.max(ranker.id)).group_by(ranker.space_signature)
        needed = union(
            select(extractor.weights).where(in_use, extractor.weights.is_not(None)),
            select(extractor.importance).where(in_use, extractor.importance.is_not(None)),
            select(ranker.weights).where(ranker.id.in_(newest)),
            select(tables.OfflineDataset.features),
        )
        self._session.flush()
        self._session.execute(delete(tables.Blob).where(tables.Blob.sha256.not_in(needed)))

    def _has_weights(self, version: tables.Extractor) -> bool:
        """False once they were dropped; the initial version's follow from their seed."""
        return version.weights is None or self._session.scalar(_blobs().where(tables.Blob.sha256 == version.weights))

    def _put(self, tensors: Mapping[str, Tensor]) -> str:
        from nni_hyperfd.method import weights

        return self._store.put(self._session, weights.dumps(tensors))


def _blobs() -> Select[tuple[str]]:
    return select(tables.Blob.sha256)


def unknown_meta_feature(known: Mapping[int, Tensor]) -> Tensor:
    """What stands for a data set without meta-feature (64,): the mean of the known ones, else one fixed direction, so
    that the score is the same for all such data sets and still learns which configurations are good in general."""
    import torch

    if known:
        return torch.stack(list(known.values())).mean(0)
    return torch.full((META_FEATURE_LENGTH,), META_FEATURE_LENGTH**-0.5)
