"""Which past tasks have something in common with the others, so that a new task may expect it too (eq. B8)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.belief.evidence import Evidence, Seen, Whole

_MOST_HARM = 0.1
"""Maximum increase of a task's mean squared error, in units of its variance, when it is predicted from the others.

Tasks that have little to do with each other are no obstacle; those that prefer the opposite are.
"""


def agreeing(
    tasks: Sequence[Evidence], seen: Sequence[Seen], root: NDArray[np.floating], mean_variance: float
) -> list[int]:
    """Return the places of the past tasks, without those that are known whole and contradict the others.

    The one that the others contradict most is left out first, and the rest looked at again, because it makes others
    look as if they contradicted.

    Args:
        tasks: what each says.
        seen: the same in whitened coordinates, in which h ~ N(0, I). S must be the one that is expected beforehand:
            one that was learned from contradictions takes them for granted.
        root: (k, k), with root @ root.T = S.
        mean_variance: prior variance of m in whitened coordinates.
    """
    k = len(root)
    information = np.eye(k) / mean_variance + sum(one.information for one in seen)
    told = sum((one.told for one in seen), np.zeros(k))
    kept = list(range(len(tasks)))
    while True:
        harm = {
            place: _harm(task, root @ np.linalg.solve(information - one.information, told - one.told))
            for place, (task, one) in enumerate(zip(tasks, seen, strict=True))
            if place in kept and isinstance(task, Whole)
        }
        worst = max(harm, key=lambda place: harm[place], default=None)
        if worst is None or harm[worst] <= _MOST_HARM:
            return kept
        kept.remove(worst)
        information, told = information - seen[worst].information, told - seen[worst].told


def _harm(task: Whole, mean: NDArray[np.float64]) -> float:
    """By how much further a task's targets are from those that follow from m (k,) than from 0; 0 unless opposed."""
    predicted = task.features @ mean
    common = float(predicted @ task.targets)
    return float(predicted @ predicted - 2 * common) / task.count if common < 0 else 0.0
