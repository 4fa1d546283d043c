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
from nni_hyperfd.space.encoded import EncodedConfigurations
from nni_hyperfd.space.parameters import Choice, Interval, SpaceError, from_nni

Configuration = dict[str, Any]
"""One point of a search space: parameter name -> value, JSON types only."""

KINDS = ("hpo", "nas", "joint")
_MAX_ENUMERATED = 10_000


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
        parameters = {name: from_nni(name, spec["_type"], spec["_value"]) for name, spec in definition.items()}
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

    def encode(self, configurations: Sequence[Configuration]) -> EncodedConfigurations:
        """The configurations in numbers.

        The vectors are float32 (n, dim), with zeros for what belongs to inactive blocks. In a space with architectures
        there are graphs as well, and `beside` names the columns of the other parameters.

        Args:
            configurations: one or more.

        Raises:
            SpaceError: as `canonical`.
            ValueError: there is no configuration.
        """
        canonical = [self.canonical(configuration) for configuration in configurations]
        rows = []
        for configuration in canonical:
            unused = architecture.inactive(configuration) if self.architectures else ()
            rows.append(
                [
                    0.0 if name in unused else x
                    for name, parameter in self.parameters.items()
                    for x in parameter.encode(configuration[name])
                ]
            )
        vectors = np.asarray(rows, dtype=np.float32).reshape(len(rows), self.dim)
        if not self.architectures:
            return EncodedConfigurations(vectors)
        graphs = architecture.graphs([Architecture.of(configuration) for configuration in canonical])
        return EncodedConfigurations(vectors, graphs, self._beside)

    @cached_property
    def example(self) -> EncodedConfigurations:
        """One configuration of the space in numbers, for whoever needs to know their sizes."""
        return self.encode(self.sample(1, np.random.default_rng(0)))

    @cached_property
    def _beside(self) -> tuple[int, ...]:
        """Columns of the parameters that choose no architecture."""
        owners = [name for name, parameter in self.parameters.items() for _ in range(parameter.width)]
        return tuple(column for column, name in enumerate(owners) if name in self._others)

    @cached_property
    def _others(self) -> dict[str, Choice | Interval]:
        """The parameters that choose no architecture."""
        chosen = self.architectures.choices if self.architectures else ()
        return {name: parameter for name, parameter in self.parameters.items() if name not in chosen}

    def _at(self, index: int) -> Configuration:
        configuration = {}
        for name, parameter in self._others.items():
            index, place = divmod(index, int(parameter.count))
            configuration[name] = parameter.at(place)
        if self.architectures:
            configuration |= self.architectures.at(index)
        return self._in_order(configuration)

    def _in_order(self, configuration: Configuration) -> Configuration:
        return {name: configuration[name] for name in self.parameters}


def _architectures(parameters: Mapping[str, Choice | Interval]) -> ArchitectureSpace:
    choices = {}
    for name in [name for name in architecture.PARAMETERS if name in parameters]:
        parameter = parameters[name]
        if not isinstance(parameter, Choice):
            raise SpaceError(f"search space: {name!r} has to be a choice, as in search_spaces/proxylessnas.json")
        choices[name] = parameter.values
    try:
        return ArchitectureSpace.of(choices)
    except ArchitectureError as error:
        raise SpaceError(
            f"search space: {error}; start from search_spaces/proxylessnas.json, or say space: hpo in classArgs for a "
            "trial of your own"
        ) from None
