"""Experience moves between states: `hyperfd export` and `hyperfd import`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nni_hyperfd.platform.platform import Platform, keep_space
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state import exchange
from nni_hyperfd.state.exchange import Document, DocumentError, ExportedExtractor, ExportedTask
from nni_hyperfd.state.tables import EncoderRow, ExtractorRow, OfflineDatasetRow, TaskRow, TrialRow, now
from nni_hyperfd.task import Status


def export(platform: Platform) -> dict[str, Any]:
    """All closed tasks and all that was learned, as a JSON document (`nni_hyperfd.state.exchange`)."""
    with platform.store.read() as session:
        return exchange.write(session)


def import_(platform: Platform, document: Any) -> int:
    """Add the tasks of an exported document, learn from them, and return how many were new.

    An empty state takes over everything. Into another one come the tasks that it does not have. A meta-feature means
    something only in the space of its extractor: it is kept where this state has that version too, or can carry it over
    because both have described some of the same data sets of the platform's own (eq. 4), and left out otherwise.

    Raises:
        DocumentError: the document is refused as a whole; nothing was added.
    """
    found = exchange.read(document)
    _check_weights(found)
    with platform.store.write() as session:
        empty = not session.scalar(select(func.count()).select_from(TaskRow)) and not session.scalar(
            select(func.count()).select_from(ExtractorRow)
        )
        versions = _adopt_versions(platform, session, found) if empty else _known_versions(platform, session, found)
        added = _add_tasks(platform, session, found, versions)
        if empty:
            _adopt_encoders(platform, session, found, versions, added)
    if not empty:
        _learn_from(platform, found, added)
    return len(added)


def _check_weights(document: Document) -> None:
    """Check all that is to be loaded some day, before anything is added."""
    from nni_hyperfd.method import features, weights

    described = [e.described for e in document.extractors.values() if e.described is not None]
    for data in [*document.blobs.values(), *described]:
        try:
            weights.loads(data)
        except weights.WeightsError as error:
            raise DocumentError(f"blobs: {error}") from None
    for name, digest in document.offline.items():
        try:
            features.unpack(weights.loads(document.blobs[digest]))
        except weights.WeightsError as error:
            raise DocumentError(f"offline data set {name}: {error}") from None


def _adopt_versions(platform: Platform, session: Session, document: Document) -> dict[str, int]:
    """Keep all versions and data sets of a document in an empty state; the id that each version gets."""
    for data in document.blobs.values():
        platform.store.put(session, data)
    session.add_all(OfflineDatasetRow(name=name, features=digest) for name, digest in document.offline.items())
    ids: dict[str, int] = {}
    for name, extractor in document.extractors.items():
        ids[name] = _add_version(session, extractor, ids, head=extractor.head)
    if not any(extractor.head for extractor in document.extractors.values()):
        platform.versions.head(session)
    return ids


def _known_versions(platform: Platform, session: Session, document: Document) -> dict[str, int]:
    """The ids of those versions of a document whose meta-features mean something to a state that holds others."""
    known = dict(session.execute(select(ExtractorRow.weights, ExtractorRow.id)).tuples().all())
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
