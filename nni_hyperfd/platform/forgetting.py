"""Deleting tasks, as a data owner may ask for."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from sqlalchemy import delete, select, text

from nni_hyperfd.state.tables import EncoderRow, TaskRow, TrialRow

if TYPE_CHECKING:
    from nni_hyperfd.platform.platform import Platform


def forget(platform: Platform, experiments: Collection[str]) -> set[str]:
    """Delete the tasks of experiments: what described their data sets, and all their trials and results.

    The encoders of their search spaces go as well; they are learned anew, from the other results, when they are needed.
    Versions of the extractor that have learned from the tasks stay, for an update cannot be taken out of an average.

    Args:
        platform: where they are.
        experiments: NNI's ids; those that the platform does not know are left out.

    Returns:
        The experiments whose tasks are gone.
    """
    with platform.store.write() as session:
        session.execute(text("PRAGMA secure_delete = ON"))  # their bytes are overwritten
        wanted = TaskRow.experiment.in_(experiments) & TaskRow.dataset.is_(None)
        tasks = session.scalars(select(TaskRow).where(wanted)).all()
        ids, spaces = [task.id for task in tasks], {task.space_signature for task in tasks}
        session.execute(delete(EncoderRow).where(EncoderRow.space_signature.in_(spaces)))
        session.execute(delete(TrialRow).where(TrialRow.task_id.in_(ids)))
        session.execute(delete(TaskRow).where(TaskRow.id.in_(ids)))
        platform.versions.drop_unneeded(session)
    return {task.experiment for task in tasks}
