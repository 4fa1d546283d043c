"""What leaves of the APs that trials measure: two digits, unless their owner says otherwise. No bound covers them."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

DIGITS = 2
"""Significant digits of an AP that leaves, so that percent and losses keep as much as numbers in [0, 1] do."""


def rounded(value: Any) -> Any:
    """A metric as trials report it, with `DIGITS` digits of every number that is not whole, also inside of objects."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    if isinstance(value, Real) and not isinstance(value, Integral):
        return float(f"{float(value):.{DIGITS}g}")
    return value
