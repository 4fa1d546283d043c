"""Tasks put into a state without running them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from nni_hyperfd.platform import Platform
    from nni_hyperfd.space import SearchSpace
    from nni_hyperfd.state.store import Store


def all_rows(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that a state holds, by table."""
    from sqlalchemy import select

    from nni_hyperfd.state.tables import Base

    with store.read() as session:
        return {
            table.name: [tuple(row) for row in session.execute(select(table).order_by(*table.primary_key.columns))]
            for table in Base.metadata.sorted_tables
        }


def add_task(
    platform: Platform,
    space: SearchSpace,
    experiment: str,
    performances: Sequence[float | None] = (),
    closed: bool = True,
    learned: bool = True,
    settings: dict[str, Any] | None = None,
    **fields: Any,
) -> int:
    """Add a task whose picks have ended, and return its id.

    Args:
        platform: that of the state.
        space: the search space; its configurations are drawn by the number of the task.
        experiment: its name.
        performances: of its picks; None for a failed one.
        closed: whether it is closed.
        learned: whether the encoder counts as having learned from a closed one.
        settings: that differ from the defaults of a task without service trials.
        fields: of `nni_hyperfd.state.tables.TaskRow`.
    """
    from nni_hyperfd.platform.platform import keep_space
    from nni_hyperfd.state.tables import TaskRow, TrialRow, now
    from nni_hyperfd.task import Phase, Status, TaskSettings

    with platform.store.write() as session:
        row = TaskRow(
            experiment=experiment,
            space_signature=keep_space(session, space),
            settings=TaskSettings(**{"service": False, **(settings or {})}),
            closed=now() if closed else None,
            learned=now() if closed and learned else None,
            **{"extractor_id": platform.versions.head(session).id, **fields},
        )
        session.add(row)
        session.flush()
        configurations = space.sample(len(performances), np.random.default_rng(row.id))
        for parameter_id, (configuration, performance) in enumerate(zip(configurations, performances, strict=True)):
            row.trials.append(
                TrialRow(
                    parameter_id=parameter_id,
                    phase=Phase.FINE_TUNE,
                    status=Status.FAILED if performance is None else Status.SUCCEEDED,
                    configuration=configuration,
                    performance=performance,
                    ended=now(),
                )
            )
        return row.id
