"""Experience moves between states: `hyperfd export` and `hyperfd import`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nni_hyperfd.platform.platform import Platform, keep_space
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state import exchange
from nni_hyperfd.state.exchange import Document, ExportedExtractor, ExportedTask, place
from nni_hyperfd.state.tables import EncoderRow, ExtractorRow, OfflineDatasetRow, TaskRow, TrialRow, now
from nni_hyperfd.task import Status
from nni_hyperfd.wire import META_FEATURE_LENGTH

if TYPE_CHECKING:
    from torch import Tensor

    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor


def export(platform: Platform) -> dict[str, Any]:
    """All closed tasks and all that was learned, as a JSON document (`nni_hyperfd.state.exchange`)."""
    with platform.store.read() as session:
        return exchange.write(session)


def import_(platform: Platform, document: Any) -> int:
    """Add the tasks of an exported document, learn from them, and return how many were new.

    An empty state takes over everything, unless the document has no weights. Into another one come the tasks that it
    does not have. A meta-feature means something only in the space of its extractor: it is kept where this state has
    that version too, or can carry it over because both have described some of the same data sets of the platform's own
    (eq. 4), and left out otherwise.

    Raises:
        DocumentError: the document is refused as a whole; nothing was added.
    """
    found = exchange.read(document)
    _check_weights(found)
    with platform.store.write() as session:
        adopt = _is_empty(session) and any(extractor.head for extractor in found.extractors.values())
        versions = _adopt_versions(platform, session, found) if adopt else _known_versions(platform, session, found)
        added = _add_tasks(platform, session, found, versions)
        if adopt:
            _adopt_encoders(platform, session, found, versions, added)
    if not adopt:
        _learn_from(platform, found, added)
    return len(added)


def _is_empty(session: Session) -> bool:
    return not any(session.scalar(select(func.count()).select_from(table)) for table in (TaskRow, ExtractorRow))


def _check_weights(document: Document) -> None:
    """Check all that is to be loaded some day, before anything is added.

    Raises:
        DocumentError: something is no weights, or not what it should be.
    """
    from nni_hyperfd.method import weights
    from nni_hyperfd.method.config_encoder import ConfigurationEncoder
    from nni_hyperfd.method.recipe import INITIAL_SEED

    with place("blobs"):
        blobs = {digest: weights.loads(data) for digest, data in document.blobs.items()}
    head = None
    for name, exported in document.extractors.items():
        with place(f"extractors[{name}]"):
            extractor = _checked_extractor(exported, blobs)
            head = extractor if exported.head else head
    for name, digest in document.offline.items():
        with place(f"offline[{name}]"):
            head = _described_by(head, blobs[digest])
    for index, encoder in enumerate(document.encoders):
        with place(f"encoders[{index}]"):
            template = ConfigurationEncoder.initial(encoder.space.example, INITIAL_SEED).state_dict()
            weights.check_like(blobs[encoder.weights], template, "the encoder")


def _checked_extractor(exported: ExportedExtractor, blobs: dict[str, dict[str, Tensor]]) -> MetaFeatureExtractor | None:
    """A version as a module; None for an initial one, and where the document does not have its weights."""
    from nni_hyperfd.method import weights
    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor

    described = {} if exported.described is None else weights.loads(exported.described)
    if any(h.shape != (META_FEATURE_LENGTH,) for h in described.values()):
        raise ValueError(f"described: meta-features of {META_FEATURE_LENGTH} numbers were expected")
    if exported.weights not in blobs:
        return None
    extractor = MetaFeatureExtractor.from_weights(blobs[exported.weights])
    template = extractor.state_dict()
    if len(template["image.bias"]) != META_FEATURE_LENGTH:
        raise ValueError(f"its meta-features do not have {META_FEATURE_LENGTH} numbers")
    if exported.importance in blobs:
        weights.check_like(blobs[exported.importance], template, "the importance")
    return extractor


def _described_by(extractor: MetaFeatureExtractor | None, packed: dict[str, Tensor]) -> MetaFeatureExtractor:
    """Check that the newest extractor describes a data set, which gives an initial one its width; that extractor."""
    import torch

    from nni_hyperfd.method import features
    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
    from nni_hyperfd.method.recipe import INITIAL_SEED

    images, _ = features.unpack(packed)
    if extractor is None:
        extractor = MetaFeatureExtractor.initial(images.shape[-1], INITIAL_SEED)
    with torch.no_grad():
        if not extractor(images).isfinite().all():
            raise ValueError("its features are out of range")
    return extractor


def _adopt_versions(platform: Platform, session: Session, document: Document) -> dict[str, int]:
    """Keep all versions and data sets of a document in an empty state; the id that each version gets."""
    for data in document.blobs.values():
        platform.store.put(session, data)
    session.add_all(OfflineDatasetRow(name=name, features=digest) for name, digest in document.offline.items())
    ids: dict[str, int] = {}
    for name, extractor in document.extractors.items():
        ids[name] = _add_version(session, extractor, ids, head=extractor.head)
    return ids


def _known_versions(platform: Platform, session: Session, document: Document) -> dict[str, int]:
    """The ids of those versions of a document whose meta-features mean something to a state that holds others."""
    platform.versions.head(session)
    known = {row.weights: row.id for row in session.execute(select(ExtractorRow.weights, ExtractorRow.id))}
    own = set(session.scalars(select(OfflineDatasetRow.features)))
    used = {task.extractor for task in document.tasks if task.description["meta_feature"] is not None}
    ids: dict[str, int] = {}
    for name, extractor in document.extractors.items():
        if extractor.weights in known:
            ids[name] = known[extractor.weights]
        elif name in used and _described(extractor) & own:
            for digest in (extractor.weights, extractor.importance):
                if digest in document.blobs:
                    platform.store.put(session, document.blobs[digest])
            ids[name] = _add_version(session, extractor, ids, head=False)
    return ids


def _add_version(session: Session, extractor: ExportedExtractor, ids: dict[str, int], head: bool) -> int:
    row = ExtractorRow(
        parent_id=None if extractor.parent is None else ids.get(extractor.parent),
        head=head,
        weights=extractor.weights,
        importance=extractor.importance,
        described=extractor.described,
    )
    session.add(row)
    session.flush()
    return row.id


def _described(extractor: ExportedExtractor) -> set[str]:
    """Which data sets it has described, by the sha256 of their features."""
    from nni_hyperfd.method import weights

    return set() if extractor.described is None else set(weights.loads(extractor.described))


def _add_tasks(platform: Platform, session: Session, document: Document, versions: dict[str, int]) -> dict[str, int]:
    """Add the tasks that the state does not have; their ids by experiment."""
    head_id = platform.versions.head(session).id
    present = set(session.scalars(select(TaskRow.experiment)))
    added: dict[str, int] = {}
    for exported in document.tasks:
        if exported.experiment in present | added.keys():
            continue
        task = _task_row(session, exported)
        task.extractor_id = versions.get(exported.extractor, head_id)
        if exported.extractor not in versions:
            task.meta_feature = None
        session.add(task)
        session.flush()
        added[exported.experiment] = task.id
    return added


def _task_row(session: Session, exported: ExportedTask) -> TaskRow:
    return TaskRow(
        experiment=exported.experiment,
        space_signature=keep_space(session, exported.space),
        settings=exported.settings,
        dataset=exported.dataset,
        closed=now(),
        learned=now(),
        trials=[
            TrialRow(
                phase=result.phase,
                status=Status.FAILED if result.performance is None else Status.SUCCEEDED,
                configuration=result.configuration,
                performance=result.performance,
                ended=now(),
            )
            for result in exported.results
        ],
        **exported.description,
    )


def _adopt_encoders(
    platform: Platform, session: Session, document: Document, versions: dict[str, int], tasks: dict[str, int]
) -> None:
    for encoder in document.encoders:
        session.add(
            EncoderRow(
                space_signature=keep_space(session, encoder.space),
                task_id=tasks[encoder.experiment],
                extractor_id=versions[encoder.extractor],
                weights=encoder.weights,
            )
        )


def _learn_from(platform: Platform, document: Document, added: dict[str, int]) -> None:
    """Learn from the tasks that were added, space by space; from the platform's own data sets later, beside others."""
    new: dict[str, tuple[SearchSpace, list[int]]] = {}
    for task in document.tasks:
        if task.experiment in added and task.dataset is None:
            new.setdefault(task.space.signature, (task.space, []))[1].append(added[task.experiment])
    for space, ids in new.values():
        platform.learning.learn_from(space, ids)
