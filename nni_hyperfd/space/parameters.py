"""The parameters of a search space: what they can be, how they are drawn, and what an encoder sees of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


class SpaceError(ValueError):
    """The search space, or a configuration of it, cannot be ranked."""


@dataclass(frozen=True)
class Choice:
    """A categorical parameter; encoded one-hot, in the order of the search space file.

    Attributes:
        values: one or more different ones, numbers or strings.
    """

    values: tuple[Any, ...]

    @property
    def width(self) -> int:
        """Numbers in an encoded value."""
        return len(self.values)

    @property
    def count(self) -> float:
        """How many values there are."""
        return len(self.values)

    def at(self, place: int) -> Any:
        """One of the `count` values."""
        return self.values[place]

    def sample(self, rng: np.random.Generator) -> Any:
        """A value drawn uniformly."""
        return self.values[rng.integers(len(self.values))]

    def canonical(self, value: Any) -> Any:
        """The own value that equals `value`.

        Raises:
            SpaceError: there is none.
        """
        for own in self.values:
            # NNI's JSON turns 1.0 into 1 on its way through node, so numbers are compared as numbers.
            if own == value and isinstance(own, str) == isinstance(value, str):
                return own
        raise SpaceError(f"{value!r} is none of {list(self.values)}")

    def encode(self, value: Any) -> list[float]:
        """The `width` numbers of a value."""
        return [float(own == value) for own in self.values]


@dataclass(frozen=True)
class Interval:
    """A numeric parameter between two bounds; encoded as its place in [0, 1], on a log scale where NNI draws it so.

    Attributes:
        low: lower bound, inclusive.
        high: upper bound, inclusive, greater than `low`.
        log: whether its logarithm is drawn uniformly.
        step: values are multiples of it; 0 for any value.
        integer: whether values are whole numbers.
    """

    low: float
    high: float
    log: bool = False
    step: float = 0.0
    integer: bool = False

    @property
    def width(self) -> int:
        """Numbers in an encoded value."""
        return 1

    @property
    def count(self) -> float:
        """How many values can be drawn; infinite without a step."""
        if self.integer:
            return int(self.high) - int(self.low) + 1
        return round(self.high / self.step) - round(self.low / self.step) + 1 if self.step else math.inf

    def at(self, place: int) -> float | int:
        """One of the `count` values."""
        return int(self.low) + place if self.integer else self._clip((round(self.low / self.step) + place) * self.step)

    def sample(self, rng: np.random.Generator) -> float | int:
        """A value drawn as NNI draws it."""
        if self.integer:
            return int(rng.integers(int(self.low), int(self.high), endpoint=True))
        low, high = self._scaled(self.low, self.high)
        value = rng.uniform(low, high)
        value = math.exp(value) if self.log else value
        return self._clip(round(value / self.step) * self.step if self.step else value)

    def canonical(self, value: Any) -> float | int:
        """The value as a number of the right type.

        Raises:
            SpaceError: it is no number, or outside the bounds.
        """
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            raise SpaceError(f"{value!r} is no number between {self.low} and {self.high}")
        if self.integer and value != int(value):
            raise SpaceError(f"{value!r} is no whole number")
        return int(value) if self.integer else float(value)

    def encode(self, value: float) -> list[float]:
        """The one number of a value, in [0, 1]."""
        low, high, value = self._scaled(self.low, self.high, value)
        return [(value - low) / (high - low)]

    def _clip(self, value: float) -> float:
        return float(min(max(value, self.low), self.high))

    def _scaled(self, *values: float) -> list[float]:
        return [math.log(v) for v in values] if self.log else list(values)


def from_nni(name: str, type_: str, value: Sequence[Any]) -> Choice | Interval:
    """Read one parameter of NNI's search space.

    Raises:
        SpaceError: the ranker cannot encode it.
    """
    if any(isinstance(v, float) and not math.isfinite(v) for v in value):
        raise SpaceError(f"search space: {name!r} holds a number that is not finite: {value}")
    if type_ == "choice":
        if not value or not all(isinstance(v, (int, float, str)) and not isinstance(v, bool) for v in value):
            raise SpaceError(
                f"search space: the ranker cannot encode {name!r}, a choice among {value}; "
                "write a flat, non-empty list of numbers or strings"
            )
        if len(set(value)) < len(value):
            raise SpaceError(f"search space: {name!r} names a value twice: {value}")
        return Choice(tuple(value))
    if type_ == "randint":
        low, high = value[0], value[1] - 1  # NNI's upper bound is exclusive
        return Choice((low,)) if low == high else Interval(low, high, integer=True)
    if type_ in ("uniform", "quniform", "loguniform", "qloguniform"):
        if type_.startswith("q") and value[2] <= 0:
            raise SpaceError(f"search space: {name!r} has a step of {value[2]}; write one greater than 0")
        return Interval(value[0], value[1], log="log" in type_, step=value[2] if type_.startswith("q") else 0.0)
    raise SpaceError(
        f"search space: the ranker cannot encode {name!r} of type {type_!r}; "
        "use choice, randint or a (q)(log)uniform range"
    )
