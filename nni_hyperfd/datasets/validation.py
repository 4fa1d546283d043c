"""How far an AP can be trusted that was measured on few faces."""

from __future__ import annotations

import math

FEW_FACES = 30
"""A validation split with fewer faces than this is warned of."""
_TYPICAL_AP = 0.8


class FewFacesWarning(UserWarning):
    """A validation split has so few faces that its AP is mostly chance; the message says how much."""


def standard_error(num_faces: int, ap: float = _TYPICAL_AP) -> float:
    """Estimate the standard error of AP@50, as if each face were found or missed by itself.

    Faces of one image are rather found or missed together, so the real error is a little larger.

    Args:
        num_faces: faces that count in AP, at least 1.
        ap: the AP, in [0, 1].
    """
    return math.sqrt(ap * (1 - ap) / num_faces)


def caution(num_faces: int) -> str | None:
    """Say in one sentence how far the AP of a validation split can be trusted; None if it has enough faces."""
    if num_faces >= FEW_FACES or num_faces < 1:
        return None
    error = standard_error(num_faces)
    return (
        f"there are only {num_faces} face{'s' * (num_faces > 1)} to validate on, so an AP of {_TYPICAL_AP} is known to"
        f" about ± {error:.2f} (one standard error), and configurations whose APs differ by less than {2 * error:.2f}"
        f" cannot be told apart; give the validation split {FEW_FACES} faces or more, better 200"
    )
