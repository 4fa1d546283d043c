"""What has been learned, version by version: extractors, the maps between them, configuration encoders."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from nni_hyperfd import store as tables
from nni_hyperfd.reports import META_FEATURE_LENGTH, ExtractorUpdate, ReportError
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.store import Store

if TYPE_CHECKING:
    from torch import Tensor

    from nni_hyperfd.ranker.config_encoder import MLPEncoder
    from nni_hyperfd.ranker.meta_feature import MetaFeatureExtractor

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
        from nni_hyperfd.ranker import weights

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

    def extractor_tensors(self, version_id: int) -> dict[str, Tensor]:
        """``extractor.*`` and ``importance.*`` of a version; empty for the initial one."""
        from nni_hyperfd.ranker import weights

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
        """A meta-feature (64,) of version `source_id` as version `target_id` would have made it."""
        import torch

        h = torch.tensor(meta_feature)
        return h if source_id == target_id else self._transformation(source_id, target_id) @ h

    def offline(self) -> list[tuple[Tensor, Tensor]]:
        """Image features (n, 3, 3, D) and counts (2,) of the server's own data sets (D_off)."""
        from nni_hyperfd.ranker import features, weights

        records = self._session.scalars(select(tables.OfflineDataset).order_by(tables.OfflineDataset.name))
        return [features.unpack(weights.loads(self._store.get(self._session, r.features))) for r in records]

    def _transformation(self, source_id: int, target_id: int) -> Tensor:
        """W (64, 64) of equation 4, fitted on the server's own data sets on first use and kept."""
        from nni_hyperfd.ranker import transform, weights

        kept = self._session.get(tables.Transformation, (source_id, target_id))
        if kept is not None:
            return weights.loads(self._store.get(self._session, kept.weights))["W"]
        matrix = transform.fit_transform(self.describe_offline(source_id), self.describe_offline(target_id))
        digest = self._put({"W": matrix})
        self._session.add(tables.Transformation(source_id=source_id, target_id=target_id, weights=digest))
        self._session.flush()
        return matrix

    def describe_offline(self, version_id: int) -> Tensor:
        """Meta-features (m, 64) of the offline data sets under an extractor version."""
        import torch

        offline = self.offline()
        if not offline:
            return torch.zeros(0, META_FEATURE_LENGTH)
        extractor = self._extractor(self._session.get_one(tables.Extractor, version_id))
        with torch.no_grad():
            return torch.stack([extractor(features, counts) for features, counts in offline])

    def _extractor(self, version: tables.Extractor, like: Mapping[str, Tensor] | None = None) -> MetaFeatureExtractor:
        """A version as a module. The initial one takes its input width from the offline data, else from `like`."""
        from nni_hyperfd.ranker import weights
        from nni_hyperfd.ranker.meta_feature import MetaFeatureExtractor

        if version.weights is not None:
            return MetaFeatureExtractor.from_weights(weights.loads(self._store.get(self._session, version.weights)))
        if offline := self.offline():
            return MetaFeatureExtractor.initial(offline[0][0].shape[-1], _INITIAL_SEED)
        return MetaFeatureExtractor.from_weights(like or {})

    # -- configuration encoders ----------------------------------------------------------------------------------------

    def encoder(self, space: SearchSpace) -> tuple[MLPEncoder, int]:
        """The space's newest configuration encoder and the extractor version that it was trained towards."""
        from nni_hyperfd.ranker import weights
        from nni_hyperfd.ranker.config_encoder import MLPEncoder

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

    def _put(self, tensors: Mapping[str, Tensor]) -> str:
        from nni_hyperfd.ranker import weights

        return self._store.put(self._session, weights.dumps(tensors))


def unknown_meta_feature(known: Mapping[int, Tensor]) -> Tensor:
    """What stands for a data set without meta-feature (64,): the mean of the known ones, else one fixed direction, so
    that the score is the same for all such data sets and still learns which configurations are good in general."""
    import torch

    if known:
        return torch.stack(list(known.values())).mean(0)
    return torch.full((META_FEATURE_LENGTH,), META_FEATURE_LENGTH**-0.5)
