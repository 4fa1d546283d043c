"""The three regimes: what a recommender is told of other data sets."""

from __future__ import annotations

from enum import Enum


class Regime(str, Enum):
    """What is known of other data sets.

    Attributes:
        REAL: as on a platform with data sets of its own: these are known whole, of a past task only its own picks.
        COLD: the same without data sets of the platform's own; the first task is scored, too.
        REVEALED: as `REAL`, but all candidates' results of every past task become known, which no user pays for.
    """

    REAL = "real"
    COLD = "cold"
    REVEALED = "revealed"
