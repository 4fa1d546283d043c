"""Deleting tasks with all that came of them, as a data owner may ask for, and saying what cannot be deleted."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Engine, delete, func, select, text
from sqlalchemy.orm import Session

from nni_hyperfd.platform.auditing import audit
from nni_hyperfd.state.errors import RefusedError
from nni_hyperfd.state.sqlite_file import head_of
from nni_hyperfd.state.tables import EncoderRow, ExtractorRow, TaskRow, TenantRow, TrialRow
from nni_hyperfd.task import Phase, Status

if TYPE_CHECKING:
    from nni_hyperfd.platform.platform import Platform

_TABLES = "tasks, trials, encoders, extractors, blobs"  # whose rows are deleted
_SHOWN = 20  # ids of a sentence


@dataclass(frozen=True)
class Deleted:
    """What was deleted, and what is left of it.

    Attributes:
        task_ids: the tasks that are gone, with their trials and results.
        experiments: NNI's names of them.
        spaces: signatures of the search spaces whose encoders had learned from them, and are learned anew.
        extractors: the versions of the extractor that an update of theirs has entered, and that are still there.
        newest: whether the newest version is one of these.
        where: where bytes of them may be left.
    """

    task_ids: tuple[int, ...]
    experiments: tuple[str, ...]
    spaces: tuple[str, ...]
    extractors: tuple[int, ...]
    newest: bool
    where: str

    def sentences(self) -> list[str]:
        """What was deleted and what is left, for whoever has asked for it."""
        if not self.task_ids:
            return ["Nothing was deleted: there are no such tasks."]
        said = [
            f"Deleted, with descriptions, trials and results: {_tasks(self.task_ids)}.",
            "Learned anew from the other tasks: the encoders of their search spaces, when they are next needed or by "
            "the workers of a server; and the beliefs, which are nowhere stored.",
        ]
        if self.extractors:
            versions = ", ".join(map(str, self.extractors))
            said.append(
                f"Left: updates of these tasks have entered the versions {versions} of the extractor"
                f"{', among them the newest' if self.newest else ', none of them the newest'}. An update cannot be "
                "taken out of a version."
            )
            if self.newest:
                said.append("'hyperfd forget --extractor' begins with the package's extractor again.")
        else:
            said.append("Left in what was learned: nothing.")
        return [*said, self.where]


def _tasks(ids: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, ids[:_SHOWN]))
    return f"task{'s' if len(ids) > 1 else ''} {shown}{f' and {len(ids) - _SHOWN} more' if len(ids) > _SHOWN else ''}"


def forget(platform: Platform, experiments: Collection[str]) -> Deleted:
    """Delete the clients' tasks of experiments, by NNI's ids; those that the platform does not know are left out."""
    return _delete(platform, TaskRow.experiment.in_(experiments))


def forget_tasks(platform: Platform, task_ids: Collection[int]) -> Deleted:
    """Delete clients' tasks by their ids; those that the platform does not know are left out."""
    return _delete(platform, TaskRow.id.in_(task_ids))


def forget_tenant(platform: Platform, name: str) -> Deleted:
    """Delete all tasks of a tenant; the tenant itself stays.

    Raises:
        RefusedError: there is no such tenant.
    """
    with platform.store.read() as session:
        tenant_id = session.scalar(select(TenantRow.id).where(TenantRow.name == name))
    if tenant_id is None:
        raise RefusedError(f"there is no tenant {name}")
    return _delete(platform, TaskRow.tenant_id == tenant_id)


def begin_extractor_again(platform: Platform, source: Path) -> int:
    """Take over the extractor of another state as the newest version, so that no client's update is in it any more.

    What clients' data sets were described by stays as it is, and is carried over. The encoders are learned anew.

    Args:
        platform: whose extractor has learned from what it should not have.
        source: the other state, such as the package's own.

    Returns:
        The id of the new version.

    Raises:
        RefusedError: the other state has no extractor, or one of another width.
    """
    from nni_hyperfd.method import weights
    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor

    found, versions = head_of(source), platform.versions
    if found is None:
        raise RefusedError(f"state {source}: it has no extractor of this format; name another state")
    network, current = MetaFeatureExtractor.from_weights(weights.loads(found[0])), versions.extractor()
    if current is not None and current.feature_dim != network.feature_dim:
        raise RefusedError(f"state {source}: its extractor is for a detector of another width; name another state")
    versions.describe_before_dropping()
    described = weights.dumps(versions.describe(network))
    with platform.store.write() as session:
        versions.head(session).head = False
        digests = [platform.store.put(session, data) for data in found]
        row = ExtractorRow(head=True, weights=digests[0], importance=digests[1], described=described)
        session.add(row)
        session.execute(delete(EncoderRow))
        versions.drop_unneeded(session)
        session.flush()
    _overwrite(platform.store.engine)
    return row.id


def _delete(platform: Platform, which: ColumnElement[bool]) -> Deleted:
    with platform.store.write() as session:
        if platform.store.engine.dialect.name == "sqlite":
            session.execute(text("PRAGMA secure_delete = ON"))  # their bytes are overwritten
        tasks = session.scalars(select(TaskRow).where(which, TaskRow.dataset.is_(None)).order_by(TaskRow.id)).all()
        ids, spaces = [task.id for task in tasks], {task.space_signature for task in tasks}
        own = {task.extractor_id for task in tasks if _has_updated(session, task)}
        session.execute(delete(EncoderRow).where(EncoderRow.space_signature.in_(spaces)))
        session.execute(delete(TrialRow).where(TrialRow.task_id.in_(ids)))
        session.execute(delete(TaskRow).where(TaskRow.id.in_(ids)))
        entered = _entered(session, own)
        for version_id in sorted(own, reverse=True):
            _delete_unused(session, version_id)
        left = session.scalars(select(ExtractorRow).where(ExtractorRow.id.in_(entered)).order_by(ExtractorRow.id)).all()
        platform.versions.drop_unneeded(session)
    audit("tasks deleted", tasks=ids, extractors=[row.id for row in left])
    return Deleted(
        tuple(ids),
        tuple(task.experiment for task in tasks),
        tuple(sorted(spaces)),
        tuple(row.id for row in left),
        any(row.head for row in left),
        _overwrite(platform.store.engine) if ids else "",
    )


def _has_updated(session: Session, task: TaskRow) -> bool:
    """Whether a task's version of the extractor is its own update, and not the version that it was given."""
    if any(trial.phase is Phase.LEARN and trial.status is Status.SUCCEEDED for trial in task.trials):
        return True
    version = session.get_one(ExtractorRow, task.extractor_id)
    return version.parent_id is not None and version.created > task.created


def _entered(session: Session, updates: Iterable[int]) -> set[int]:
    """The versions that updates have entered: themselves, what was made from them, and means that they are part of."""
    rows = {row.id: row for row in session.scalars(select(ExtractorRow))}
    entered, open_ids = set(updates), list(updates)
    while open_ids:
        version = rows[open_ids.pop()]
        for row in rows.values():
            made_from_it = row.parent_id == version.id
            # The mean of waiting updates is the child of the version that all of them were made from.
            mean = version.among is not None and row.parent_id == version.parent_id and row.among is None
            if row.id not in entered and (made_from_it or mean and row.id > version.id):
                entered.add(row.id)
                open_ids.append(row.id)
    return entered


def _delete_unused(session: Session, version_id: int) -> None:
    """Delete a version that only a deleted task has used."""
    row = session.get_one(ExtractorRow, version_id)
    users = (
        select(func.count()).where(ExtractorRow.parent_id == version_id),
        select(func.count()).where(TaskRow.extractor_id == version_id),
        select(func.count()).where(EncoderRow.extractor_id == version_id),
    )
    if not row.head and not any(session.scalar(count) for count in users):
        session.delete(row)
        session.flush()


def _overwrite(engine: Engine) -> str:
    """See that the deleted bytes go from the disk, as far as that can be done from here; what is left, as a sentence.

    An earlier change of a row may have left a copy of it in a page that was not full, so SQLite's file is made anew.
    """
    with closing(engine.raw_connection()) as connection:
        if engine.dialect.name == "sqlite":
            cursor = connection.cursor()
            cursor.execute("VACUUM")
            (busy, *_) = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return (
                "On the disk: earlier copies of the file and backups have them"
                f"{', and its journal until the last of its readers has ended' if busy else ''}."
            )
        driver = connection.driver_connection
        assert driver is not None
        driver.autocommit = True
        try:
            driver.execute(f"VACUUM {_TABLES}")
        finally:
            driver.autocommit = False
    return (
        "On the disk: PostgreSQL overwrites the bytes when it uses their place again, or at once by 'VACUUM FULL', "
        "which locks the tables; its write-ahead log and backups have them until they are removed."
    )
