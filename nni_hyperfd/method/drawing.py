"""Which past tasks are learned from. Importing this does not import torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nni_hyperfd.method.settings import MOST_PICKED, MOST_TASKS


def tasks_to_learn_from(own: Sequence[int], offline: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Numbers of the past tasks to learn from, in order of arrival, at most `MOST_TASKS`.

    The newest of the clients' tasks and others drawn at random; the platform's own data sets only fill what those leave
    free.

    Args:
        own: numbers of clients' tasks, ascending.
        offline: numbers of the platform's own data sets, ascending.
        rng: of the draw.
    """
    chosen = [*rng.permutation(own[:-1])[: MOST_TASKS - 1].tolist(), *own[-1:]]
    if offline:
        chosen += rng.permutation(offline)[: MOST_TASKS - len(chosen)].tolist()
    return sorted(int(number) for number in chosen)


def tasks_to_believe(whole: Sequence[int], picked: Sequence[int], seed: int) -> list[int]:
    """Numbers of the past tasks that the default preset learns from, in order of arrival.

    Few results cost little, so there may be more tasks of which only the picks are known. The draw of the others is the
    same until there is another one of them.

    Args:
        whole: numbers of the tasks that are known whole, ascending; at most `MOST_TASKS` of them are drawn.
        picked: numbers of the others, ascending; the newest `MOST_PICKED` are taken.
        seed: of the draw.
    """
    drawn = np.random.default_rng([seed, len(whole)]).permutation(whole)[:MOST_TASKS]
    return sorted(int(number) for number in [*drawn, *picked[-MOST_PICKED:]])
