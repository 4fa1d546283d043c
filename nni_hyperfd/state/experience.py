"""What tasks have taught, read from the state."""

from __future__ import annotations

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nni_hyperfd.method.settings import MOST_TASKS
from nni_hyperfd.space.search_space import Configuration, SearchSpace
from nni_hyperfd.state.store import Task, Trial
from nni_hyperfd.task import FINE_TUNE, IMPORT

_IS_RESULT = (Trial.phase.in_((FINE_TUNE, IMPORT)), Trial.status == "succeeded")


def results(task: Task) -> tuple[list[Configuration], list[float]]:
    """Configurations and performances of a task's finished trials; the higher the better."""
    finished = [t for t in task.trials if t.phase in (FINE_TUNE, IMPORT) and t.status == "succeeded"]
    sign = 1.0 if task.settings["maximize"] else -1.0
    return [t.configuration for t in finished], [sign * t.performance for t in finished]


def is_offline(task: Task) -> bool:
    """Whether it stands for one of the platform's own data sets (states before the warm-up do not say)."""
    return task.settings.get("offline", False)


def count_closed_tasks(session: Session, space: SearchSpace) -> int:
    """How many tasks of a space are closed. None is ever opened again or removed."""
    closed = select(func.count()).where(Task.space_signature == space.signature, Task.closed.is_not(None))
    return session.scalar(closed)


def closed_tasks(session: Session, space: SearchSpace) -> list[int]:
    """Ids of the closed tasks of a space that have something to rank: two different results or more."""
    return list(
        session.scalars(
            select(Task.id)
            .join(Task.trials)
            .where(Task.space_signature == space.signature, Task.closed.is_not(None), *_IS_RESULT)
            .group_by(Task.id)
            .having(func.count(Trial.performance.distinct()) > 1)
            .order_by(Task.id)
        )
    )


def drawn_tasks(session: Session, ids: list[int], rng: np.random.Generator) -> list[Task]:
    """The newest of the tasks and others drawn at random, `MOST_TASKS` at most, in order of arrival. The platform's own
    data sets only fill what users' tasks leave free."""
    # Not only among the ids: SQLite takes a limited number of these.
    offline = set(session.scalars(select(Task.id).where(Task.settings["offline"].as_boolean().is_(True))))
    own, others = [i for i in ids if i not in offline], [i for i in ids if i in offline]
    chosen = [*rng.permutation(own[:-1])[: MOST_TASKS - 1].tolist(), *own[-1:]]
    if others:
        chosen += rng.permutation(others)[: MOST_TASKS - len(chosen)].tolist()
    return list(session.scalars(select(Task).where(Task.id.in_(chosen)).order_by(Task.id)))
