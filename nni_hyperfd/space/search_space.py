"""NNI search space <-> configuration <-> input of the configuration encoder."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from nni_hyperfd.space import architecture
from nni_hyperfd.space.architecture import Architecture, ArchitectureError
from nni_hyperfd.space.architecture_space import ArchitectureSpace
from nni_hyperfd.space.graphs import Graphs

Configuration = dict[str, Any]
"""One point of a search space: parameter name -> value, JSON types only."""

KINDS = ("hpo", "nas", "joint")
_MAX_ENUMERATED = 10_000
_RESERVED = {"phase"}  # tells the web UI and the hook what a service trial does


class SpaceError(ValueError):
    """The search space, or a configuration of it, cannot be ranked."""


@dataclass(frozen=True)
class Choice:
    """A categorical parameter; encoded one-hot, in the order of the search space file."""

    values: tuple[Any, ...]

    @property
    def width(self) -> int:
        return len(self.values)

    @property
    def count(self) -> float:
        return len(self.values)

    def at(self, place: int) -> Any:
        return self.values[place]

    def sample(self, rng: np.random.Generator) -> Any:
        return self.values[rng.integers(len(self.values))]

    def canonical(self, value: Any) -> Any:
        for own in self.values:
            # NNI's JSON turns 1.0 into 1 on its way through node, so numbers are compared as numbers.
            if own == value and isinstance(own, str) == isinstance(value, str):
                return own
        raise SpaceError(f"{value!r} is none of {list(self.values)}")

    def encode(self, value: Any) -> list[float]:
        return [float(own == value) for own in self.values]


@dataclass(frozen=True)
class Interval:
    """A numeric parameter between two bounds; encoded as its place in [0, 1], on a log scale where NNI draws it so."""

    low: float
    high: float
    log: bool = False
    step: float = 0.0
    integer: bool = False

    width = 1

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
        if self.integer:
            return int(rng.integers(int(self.low), int(self.high), endpoint=True))
        value = rng.uniform(*self._scaled(self.low, self.high))
        value = math.exp(value) if self.log else value
        return self._clip(round(value / self.step) * self.step if self.step else value)

    def canonical(self, value: Any) -> float | int:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            raise SpaceError(f"{value!r} is no number between {self.low} and {self.high}")
        if self.integer and value != int(value):
            raise SpaceError(f"{value!r} is no whole number")
        return int(value) if self.integer else float(value)

    def encode(self, value: float) -> list[float]:
        low, high, value = self._scaled(self.low, self.high, value)
        return [(value - low) / (high - low)]

    def _clip(self, value: float) -> float:
        return float(min(max(value, self.low), self.high))

    def _scaled(self, *values: float) -> list[float]:
        return [math.log(v) for v in values] if self.log else list(values)


@dataclass(frozen=True)
class SearchSpace:
    """The configurations among which the platform chooses.

    Attributes:
        parameters: name -> `Choice` or `Interval`, in the order of the search space file.
        kind: ``"nas"`` where they choose an architecture, ``"joint"`` where they choose more beside it, else ``"hpo"``.
        definition: the NNI search space that it was made from.
        architectures: None for ``"hpo"``. Two configurations that differ in inactive blocks only are the same; those
            over the FLOPs limit are no part of the space.
    """

    parameters: Mapping[str, Choice | Interval]
    kind: str
    definition: Mapping[str, Any]
    architectures: ArchitectureSpace | None = None

    @classmethod
    def from_nni(cls, definition: Any, kind: str | None = None) -> SearchSpace:
        """Check and read NNI's search space.

        Its kind follows from the parameters' names (`nni_hyperfd.space.architecture.PARAMETERS`); with the kind
        ``"hpo"`` they mean nothing. Any other `kind` has to be what was found.

        Raises:
            SpaceError: the space is malformed, or holds a parameter that the ranker cannot encode.
        """
        from nni.common.hpo_utils import validate_search_space

        try:
            validate_search_space(definition, raise_exception=True)
        except ValueError as error:
            raise SpaceError(f"search space: {error}") from None
        if not definition:
            raise SpaceError("search space: it has no parameters; add at least one to the searchSpaceFile")
        parameters = {name: _parameter(name, spec["_type"], spec["_value"]) for name, spec in definition.items()}
        if reserved := _RESERVED & set(parameters):
            raise SpaceError(f"search space: the name {reserved.pop()!r} is taken by HyperFD's own trials; rename it")
        names = parameters.keys() & architecture.PARAMETERS.keys()
        found = "hpo" if not names or kind == "hpo" else "nas" if names == parameters.keys() else "joint"
        if kind not in (None, found):
            raise SpaceError(f"search space: its parameters make it {found!r}, not {kind!r}; leave `space` out")
        return cls(parameters, found, definition, None if found == "hpo" else _architectures(parameters))

    @cached_property
    def signature(self) -> str:
        """Identifies the space in a state: sha256 over its parameters, blind to 1 versus 1.0."""

        def plain(value: Any) -> Any:
            return float(value) if isinstance(value, (int, float)) else value

        described = {
            name: repr(
                Choice(tuple(map(plain, p.values)))
                if isinstance(p, Choice)
                else replace(p, low=plain(p.low), high=plain(p.high), step=plain(p.step))
            )
            for name, p in self.parameters.items()
        }
        if self.architectures:  # the same values, but fewer configurations: inactive blocks do not tell them apart
            described[""] = "architectures"
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()

    @property
    def label(self) -> str:
        """What the space is called where it has to be told from others: its kind and the begin of its signature."""
        return f"{self.kind} {self.signature[:12]}"

    @property
    def dim(self) -> int:
        """Length of an encoded configuration."""
        return sum(parameter.width for parameter in self.parameters.values())

    @property
    def size(self) -> float:
        """Number of configurations; infinite as soon as one parameter is continuous."""
        others = math.prod(parameter.count for parameter in self._others.values())
        return others * self.architectures.count if self.architectures else others

    def sample(self, n: int, rng: np.random.Generator) -> list[Configuration]:
        """`n` distinct configurations drawn uniformly, or all of a smaller space in random order."""
        if self.size <= _MAX_ENUMERATED:
            order = rng.permutation(int(self.size))[:n]
            return [self._at(int(index)) for index in order]
        drawn: dict[str, Configuration] = {}
        # More than _MAX_ENUMERATED configurations: a draw repeats an earlier one rarely, so this ends soon.
        while len(drawn) < min(n, self.size):
            configuration = {name: p.sample(rng) for name, p in self._others.items()}
            if self.architectures:
                configuration |= self.architectures.sample(rng)
            drawn.setdefault(self.key(configuration), self._in_order(configuration))
        return list(drawn.values())

    def canonical(self, configuration: Any) -> Configuration:
        """The configuration with exactly the space's own values, the first ones where blocks are inactive.

        Raises:
            SpaceError: a parameter is missing, unknown, or outside the space, or the FLOPs limit is reached.
        """
        if not isinstance(configuration, Mapping):
            raise SpaceError(f"a configuration is a JSON object, not {configuration!r}")
        if missing := [name for name in self.parameters if name not in configuration]:
            raise SpaceError(f"the configuration lacks {', '.join(missing)}")
        if unknown := [str(name) for name in configuration if name not in self.parameters]:
            raise SpaceError(f"the search space does not have {', '.join(unknown)}")
        result = {}
        for name, parameter in self.parameters.items():
            try:
                result[name] = parameter.canonical(configuration[name])
            except SpaceError as error:
                raise SpaceError(f"{name}: {error}") from None
        if self.architectures:
            try:
                result |= self.architectures.canonical(result)
            except ArchitectureError as error:
                raise SpaceError(str(error)) from None
        return result

    def key(self, configuration: Configuration) -> str:
        """A text that two equal configurations share."""
        canonical = self.canonical(configuration)
        return json.dumps([canonical[name] for name in self.parameters])

    def encode(self, configurations: Sequence[Configuration]) -> np.ndarray:
        """Encoder input, float32 (n, dim); zeros for what belongs to inactive blocks."""
        rows = []
        for configuration in map(self.canonical, configurations):
            unused = architecture.inactive(configuration) if self.architectures else ()
            rows.append(
                [
                    0.0 if name in unused else x
                    for name, parameter in self.parameters.items()
                    for x in parameter.encode(configuration[name])
                ]
            )
        return np.asarray(rows, dtype=np.float32).reshape(len(rows), self.dim)

    def graphs(self, configurations: Sequence[Configuration]) -> Graphs:
        """The configurations' architectures for a graph encoder (`nni_hyperfd.space.architecture.graphs`).

        Raises:
            SpaceError: as `canonical`, or the space has no architectures.
        """
        if not self.architectures:
            raise SpaceError("the search space has no architectures, so its configurations are no graphs")
        return architecture.graphs([Architecture.of(self.canonical(c)) for c in configurations])

    @cached_property
    def _others(self) -> dict[str, Choice | Interval]:
        """The parameters that choose no architecture."""
        chosen = self.architectures.choices if self.architectures else ()
        return {name: parameter for name, parameter in self.parameters.items() if name not in chosen}

    def _at(self, index: int) -> Configuration:
        configuration = {}
        for name, parameter in self._others.items():
            index, place = divmod(index, parameter.count)
            configuration[name] = parameter.at(place)
        if self.architectures:
            configuration |= self.architectures.at(index)
        return self._in_order(configuration)

    def _in_order(self, configuration: Configuration) -> Configuration:
        return {name: configuration[name] for name in self.parameters}


def _architectures(parameters: Mapping[str, Choice | Interval]) -> ArchitectureSpace:
    choices = {}
    for name in [name for name in architecture.PARAMETERS if name in parameters]:
        if not isinstance(parameters[name], Choice):
            raise SpaceError(f"search space: {name!r} has to be a choice, as in search_spaces/proxylessnas.json")
        choices[name] = parameters[name].values
    try:
        return ArchitectureSpace.of(choices)
    except ArchitectureError as error:
        raise SpaceError(
            f"search space: {error}; start from search_spaces/proxylessnas.json, or say space: hpo in classArgs for a "
            "trial of your own"
        ) from None


def _parameter(name: str, type_: str, value: list[Any]) -> Choice | Interval:
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
