"""What has been learned, version by version: extractors, the maps between them, configuration encoders.

Methods that take a session belong to the caller's transaction and are quick. The others read in a transaction of their
own and compute after it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, CompoundSelect, Select, and_, delete, func, or_, select, union
from sqlalchemy.orm import Session

from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state.store import RefusedError, Store
from nni_hyperfd.state.tables import BlobRow, EncoderRow, ExtractorRow, OfflineDatasetRow, TaskRow
from nni_hyperfd.state.views import TaskView

if TYPE_CHECKING:
    from torch import Tensor

    from nni_hyperfd.method.config_encoder import ConfigurationEncoder
    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
    from nni_hyperfd.wire import ExtractorUpdate

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackedExtractor:
    """An extractor that is ready to be stored, as safetensors.

    Attributes:
        weights: its weights.
        importance: the importances of these.
        described: the meta-features of the platform's own data sets under it, by the sha256 of their features.
    """

    weights: bytes
    importance: bytes
    described: bytes


@dataclass(frozen=True, eq=False)
class EncoderVersion:
    """A space's newest configuration encoder.

    Attributes:
        id: of the version; None for the initial one, which is not stored.
        extractor_id: the extractor version that it was trained towards.
        encoder: the network.
    """

    id: int | None
    extractor_id: int
    encoder: ConfigurationEncoder


class Versions:
    """The versions in a state."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # -- extractors ----------------------------------------------------------------------------------------------------

    def head(self, session: Session) -> ExtractorRow:
        """The newest extractor version; the initial one is made on first use."""
        head = session.scalar(select(ExtractorRow).where(ExtractorRow.head))
        if head is None:
            head = ExtractorRow(head=True)
            session.add(head)
            session.flush()
        return head

    def head_id(self) -> int:
        """The id of the newest extractor version."""
        with self._store.read() as session:
            known = session.scalar(select(ExtractorRow.id).where(ExtractorRow.head))
        if known is None:
            with self._store.write() as session:
                known = self.head(session).id
        return known

    def checked_update(self, update: ExtractorUpdate) -> PackedExtractor:
        """Check that a client's update has the names and shapes of the newest version, and make it ready to be stored.

        Raises:
            RefusedError: it has not, or makes meta-features that are not finite.
        """
        from nni_hyperfd.method import weights
        from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
        from nni_hyperfd.wire import META_FEATURE_LENGTH

        try:
            newest = self.extractor() or MetaFeatureExtractor.from_weights(update.extractor)
            template = newest.state_dict()
            weights.check_like(update.extractor, template, "extractor update")
            weights.check_like(update.importance, template, "extractor importance")
        except weights.WeightsError as error:
            raise RefusedError(str(error)) from None
        if len(template["image.bias"]) != META_FEATURE_LENGTH:
            raise RefusedError(f"extractor update: its meta-features do not have {META_FEATURE_LENGTH} numbers")
        described = self.describe(MetaFeatureExtractor.from_weights(update.extractor))
        return PackedExtractor(*(weights.dumps(part) for part in (update.extractor, update.importance, described)))

    def add_extractor(
        self, session: Session, parent_id: int, extractor: PackedExtractor, among: int = 1
    ) -> ExtractorRow:
        """Keep an update of version `parent_id` as a version.

        It becomes the newest one if it was made from that and its owner lets it be handed on alone. Otherwise it serves
        the meta-feature of its own task only, and waits to be averaged with others of the same version. Where another
        task was faster, there is nothing to wait for.

        Args:
            session: the caller's transaction.
            parent_id: the version that the client was given.
            extractor: what it has made of it.
            among: number of updates that must be averaged before anything of this one is handed on.
        """
        head = self.head(session)
        newest = parent_id == head.id
        row = ExtractorRow(
            parent_id=parent_id,
            head=newest and among <= 1,
            weights=self._store.put(session, extractor.weights),
            importance=self._store.put(session, extractor.importance),
            described=extractor.described,
            among=among if newest and among > 1 else None,
        )
        if row.head:
            head.head = False
        elif newest:
            session.add(row)
            self._average(session, head)
        else:
            _logger.warning(
                "Another experiment has updated the extractor since version %d; this update of it is kept for its "
                "task's meta-feature and does not become the newest version.",
                parent_id,
            )
        session.add(row)
        session.flush()
        return row

    def _average(self, session: Session, head: ExtractorRow) -> None:
        """Make the mean of all updates of the newest version the newest one, if every owner's condition is met."""
        import torch

        from nni_hyperfd.method import weights

        session.flush()
        waiting = session.scalars(select(ExtractorRow).where(_waits_for(head.id)).order_by(ExtractorRow.id)).all()
        if len(waiting) < max(row.among or 0 for row in waiting):
            return
        means = []
        for digests in zip(*((row.weights, row.importance) for row in waiting), strict=True):
            updates = [weights.loads(self._store.get(session, digest)) for digest in digests if digest is not None]
            mean = {name: torch.stack([update[name] for update in updates]).mean(0) for name in updates[0]}
            means.append(self._store.put(session, weights.dumps(mean)))
        head.head = False
        session.add(ExtractorRow(parent_id=head.id, head=True, weights=means[0], importance=means[1]))
        session.flush()

    def start_anew(self, session: Session) -> ExtractorRow:
        """An initial extractor as the newest version, for a detector of another width.

        What was described by earlier ones means nothing to it: the platform's own data sets are dropped, and the
        meta-features of their tasks.
        """
        self.head(session).head = False
        extractor = ExtractorRow(head=True)
        session.add(extractor)
        session.execute(delete(OfflineDatasetRow))
        for task in session.scalars(select(TaskRow)):
            task.meta_feature = None
        session.flush()
        return extractor

    def extractor(self, version_id: int | None = None) -> MetaFeatureExtractor | None:
        """A version as a module; None for an initial one as long as no data set of the platform's gives its width.

        Args:
            version_id: of the version; the newest by default.

        Raises:
            StateError: its weights were dropped or are damaged.
        """
        wanted = ExtractorRow.head if version_id is None else ExtractorRow.id == version_id
        # In one transaction: as soon as there is a newer version, the weights may be dropped.
        with self._store.read() as session:
            extractor = self._with_weights(session, session.scalar(select(ExtractorRow.weights).where(wanted)))
        return extractor or self._initial()

    def digests(self) -> list[str]:
        """The sha256 of the weights of all versions whose meta-features can be carried over to others."""
        with self._store.read() as session:
            named = select(ExtractorRow.weights).where(ExtractorRow.weights.is_not(None)).distinct()
            return [digest for digest in session.scalars(named) if digest is not None]

    def id_of(self, session: Session, digest: str) -> int | None:
        """The newest version with these weights; None if there is none."""
        return session.scalar(select(func.max(ExtractorRow.id)).where(ExtractorRow.weights == digest))

    def tensors(self, version_id: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Weights and importances of an extractor version; empty for an initial one."""
        from nni_hyperfd.method import weights

        with self._store.read() as session:
            version = session.get_one(ExtractorRow, version_id)
            found = [
                {} if digest is None else weights.loads(self._store.get(session, digest))
                for digest in (version.weights, version.importance)
            ]
        return found[0], found[1]

    # -- meta-features and the maps between versions -------------------------------------------------------------------

    def carried(self, tasks: Iterable[TaskView], target_id: int) -> dict[int, Tensor]:
        """Stored meta-features in the space of version `target_id` (eq. 4 and 5).

        The map from another version is the one that fits both versions' meta-features of the platform's own data sets.

        Returns:
            Task's id -> meta-feature (64,); tasks without one are left out.
        """
        import torch

        from nni_hyperfd.method.transform import fit_transform

        known = [task for task in tasks if task.meta_feature is not None]
        described = self.described({target_id, *(task.extractor_id for task in known)})
        maps: dict[int, Tensor | None] = {target_id: None}
        for source_id in {task.extractor_id for task in known} - {target_id}:
            source, target = described[source_id], described[target_id]
            both = [digest for digest in target if digest in source]
            if both:
                rows, wanted = (torch.stack([own[digest] for digest in both]) for own in (source, target))
                maps[source_id] = fit_transform(rows, wanted)
        result = {}
        for task in known:
            h, change = torch.tensor(task.meta_feature), maps.get(task.extractor_id)
            result[task.id] = h if change is None else change @ h
        return result

    def offline(self) -> dict[str, Tensor]:
        """The platform's own data sets (D_off), in the order of their names.

        Returns:
            sha256 of the features -> image features (n, 3, 3, D).
        """
        return {digest: images for digest, images in self.offline_by_name().values()}

    def offline_for_clients(self) -> list[Tensor]:
        """As `offline`, without those that the operator marks private."""
        with self._store.read() as session:
            private = set(session.scalars(select(OfflineDatasetRow.name).where(OfflineDatasetRow.private.is_(True))))
        return [images for name, (_, images) in self.offline_by_name().items() if name not in private]

    def offline_by_name(self) -> dict[str, tuple[str, Tensor]]:
        """As `offline`, with their names: name -> sha256, and image features."""
        from nni_hyperfd.method import features, weights

        with self._store.read() as session:
            rows = session.execute(_offline_features().add_columns(OfflineDatasetRow.name)).all()
            return {
                name: (digest, features.unpack(weights.loads(self._store.get(session, digest)))[0])
                for digest, name in rows
            }

    def described(self, version_ids: Iterable[int]) -> dict[int, dict[str, Tensor]]:
        """Meta-features of the platform's own data sets under some versions.

        What is missing is computed and kept, except under a version whose weights have been dropped.

        Returns:
            Version's id -> sha256 of the features -> meta-feature (64,), in the order of the data sets' names.

        Raises:
            RefusedError: a data set's numbers are so large that its meta-feature is not finite.
        """
        from nni_hyperfd.method import weights

        ids = set(version_ids)
        with self._store.read() as session:
            digests = list(session.scalars(_offline_features()))
            rows = session.execute(
                select(ExtractorRow.id, ExtractorRow.described, ExtractorRow.weights, _has_weights()).where(
                    ExtractorRow.id.in_(ids)
                )
            ).all()
            described = {row.id: weights.loads(row.described) if row.described else {} for row in rows}
            missing = {
                row.id: [digest for digest in digests if digest not in described[row.id]] for row in rows if row[-1]
            }
            extractors = {row.id: self._with_weights(session, row.weights) for row in rows if missing.get(row.id)}
        for version_id, extractor in extractors.items():
            described[version_id] |= self.describe(extractor or self._initial(), missing[version_id])
        if extractors:
            packed = {version_id: weights.dumps(described[version_id]) for version_id in extractors}
            with self._store.write() as session:
                for version_id, data in packed.items():
                    session.get_one(ExtractorRow, version_id).described = data
        return {version_id: _in_order(known, digests) for version_id, known in described.items()}

    def describe(
        self, extractor: MetaFeatureExtractor | None, digests: Iterable[str] | None = None
    ) -> dict[str, Tensor]:
        """Meta-features of the platform's own data sets under an extractor.

        Args:
            extractor: None where there are no such data sets.
            digests: of the data sets; all by default. Those that were replaced meanwhile are left out.

        Returns:
            sha256 of the features -> meta-feature (64,).

        Raises:
            RefusedError: a meta-feature is not finite.
        """
        import torch

        offline = self.offline()
        if extractor is None:
            return {}
        with torch.no_grad():
            wanted = [digest for digest in (offline if digests is None else digests) if digest in offline]
            described = {digest: extractor(offline[digest]) for digest in wanted}
        if not all(bool(h.isfinite().all()) for h in described.values()):
            raise RefusedError("a data set's features are out of range")
        return described

    def describe_before_dropping(self) -> None:
        """Describe the platform's own data sets under every version whose weights `drop_unneeded` may drop."""
        with self._store.read() as session:
            ids = list(session.scalars(select(ExtractorRow.id).where(_has_weights())))
        self.described(ids)

    def _with_weights(self, session: Session, digest: str | None) -> MetaFeatureExtractor | None:
        """An extractor with stored weights; None for an initial one."""
        from nni_hyperfd.method import weights
        from nni_hyperfd.method.meta_feature import MetaFeatureExtractor

        if digest is None:
            return None
        return MetaFeatureExtractor.from_weights(weights.loads(self._store.get(session, digest)))

    def _initial(self) -> MetaFeatureExtractor | None:
        """The initial extractor, as soon as a data set of the platform's gives its width."""
        from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
        from nni_hyperfd.method.recipe import INITIAL_SEED

        for images in self.offline().values():
            return MetaFeatureExtractor.initial(images.shape[-1], INITIAL_SEED)
        return None

    # -- configuration encoders ----------------------------------------------------------------------------------------

    def encoder(self, space: SearchSpace) -> EncoderVersion:
        """The space's newest configuration encoder."""
        from nni_hyperfd.method import weights
        from nni_hyperfd.method.config_encoder import ConfigurationEncoder
        from nni_hyperfd.method.recipe import INITIAL_SEED

        encoder = ConfigurationEncoder.initial(space.example, INITIAL_SEED)
        with self._store.read() as session:
            newest_id = self.encoder_id(session, space)
            if newest_id is None:
                tensors = None
            else:
                newest = session.get_one(EncoderRow, newest_id)
                tensors, extractor_id = weights.loads(self._store.get(session, newest.weights)), newest.extractor_id
        if tensors is None:
            return EncoderVersion(None, self.head_id(), encoder)
        weights.check_like(tensors, encoder.state_dict(), f"encoder {newest_id} of the state")
        encoder.load_state_dict(tensors)
        return EncoderVersion(newest_id, extractor_id, encoder)

    def encoder_id(self, session: Session, space: SearchSpace) -> int | None:
        """The id of the space's newest stored encoder."""
        return session.scalar(select(func.max(EncoderRow.id)).where(EncoderRow.space_signature == space.signature))

    def add_encoder(self, session: Session, space: SearchSpace, task_id: int, encoder: bytes) -> None:
        """Keep an encoder (safetensors) that was trained on a task, towards the newest extractor."""
        session.add(
            EncoderRow(
                space_signature=space.signature,
                task_id=task_id,
                extractor_id=self.head(session).id,
                weights=self._store.put(session, encoder),
            )
        )
        session.flush()

    # -- what may go ---------------------------------------------------------------------------------------------------

    def drop_unneeded(self, session: Session) -> None:
        """Drop the weights that no task can need any more.

        Those are of extractors that are neither the newest nor an open task's and do not wait to be averaged, of
        encoders that are not their space's newest, and of the platform's own data sets that were replaced.
        """
        needed = needed_blobs(self.head(session).id)
        session.flush()
        session.execute(delete(BlobRow).where(BlobRow.sha256.not_in(needed)))


def needed_blobs(head_id: int) -> CompoundSelect[str | None]:
    """The names of all blobs that `Versions.drop_unneeded` leaves, where the newest extractor is that one."""
    opened = select(TaskRow.extractor_id).where(TaskRow.closed.is_(None))
    in_use = or_(ExtractorRow.head, ExtractorRow.id.in_(opened), _waits_for(head_id))
    newest = select(func.max(EncoderRow.id)).group_by(EncoderRow.space_signature)
    return union(
        select(ExtractorRow.weights).where(in_use, ExtractorRow.weights.is_not(None)),
        select(ExtractorRow.importance).where(in_use, ExtractorRow.importance.is_not(None)),
        select(EncoderRow.weights).where(EncoderRow.id.in_(newest)),
        select(OfflineDatasetRow.features),
    )


def _offline_features() -> Select[str]:
    return select(OfflineDatasetRow.features).order_by(OfflineDatasetRow.name)


def _in_order(known: dict[str, Tensor], digests: list[str]) -> dict[str, Tensor]:
    """Meta-features in the order of the data sets, those of replaced ones behind."""
    order = [digest for digest in digests if digest in known] + sorted(known.keys() - set(digests))
    return {digest: known[digest] for digest in order}


def _waits_for(head_id: int) -> ColumnElement[bool]:
    """Whether a version is an update of the newest one that waits to be averaged with others."""
    return and_(ExtractorRow.parent_id == head_id, ExtractorRow.among.is_not(None))


def _has_weights() -> ColumnElement[bool]:
    """Whether a version's weights are still there; the initial version's follow from their seed."""
    return or_(ExtractorRow.weights.is_(None), ExtractorRow.weights.in_(select(BlobRow.sha256)))
