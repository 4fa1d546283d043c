"""The past tasks that are learned from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nni_hyperfd.method.drawing import tasks_to_learn_from
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state import experience
from nni_hyperfd.state.store import Store
from nni_hyperfd.state.views import TaskView


def past_tasks(
    store: Store, space: SearchSpace, rng: np.random.Generator, without: int | None = None
) -> Sequence[TaskView]:
    """The closed tasks of a space to learn from (`method.tasks_to_learn_from`), in order of arrival.

    Args:
        store: the state.
        space: the search space.
        rng: of the draw.
        without: the id of a task that is none of them.
    """
    with store.read() as session:
        own, offline = ([id for id in ids if id != without] for ids in experience.closed_ids(session, space))
        return experience.tasks(session, tasks_to_learn_from(own, offline, rng))
