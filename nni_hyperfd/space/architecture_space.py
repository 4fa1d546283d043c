"""The architectures of a search space, counted and drawn uniformly below the FLOPs limit, both exactly."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.space.architecture import (
    FLOPS_LIMIT,
    PARAMETERS,
    RESOLUTION,
    STAGES,
    STEM_FLOPS,
    Architecture,
    ArchitectureError,
    Block,
    inactive,
    stage_flops,
)


class ArchitectureSpace:
    """All architectures below the FLOPs limit with given values for each of `PARAMETERS`.

    A configuration also has values for blocks beyond the depth of their stage. They have no effect; a canonical
    configuration has the first value of each such parameter. Instances are made by `of`.

    Attributes:
        choices: name of each of `PARAMETERS` -> values.
    """

    def __init__(self, choices: Mapping[str, Sequence[Any]]) -> None:
        self.choices = choices
        self._stages = [list(_stage_choices(number, choices)) for number in range(1, len(STAGES) + 1)]

    @classmethod
    def of(cls, choices: Mapping[str, Sequence[Any]]) -> ArchitectureSpace:
        """Return the space of these choices; equal choices share one, because its tables take half a second to make.

        Args:
            choices: name of each of `PARAMETERS` -> some of its values; other names are ignored.

        Raises:
            ArchitectureError: a parameter is missing, a value is not one of its values in `PARAMETERS`, or no
                architecture is below the FLOPs limit.
        """
        if missing := [name for name in PARAMETERS if name not in choices]:
            raise ArchitectureError(f"an architecture is chosen by {', '.join(missing)} as well")
        for name, (_, _, values) in PARAMETERS.items():
            if strange := [value for value in choices[name] if value not in values]:
                raise ArchitectureError(f"{name} may be {strange[0]!r}, which is none of {list(values)}")
        space = _shared(tuple((name, tuple(choices[name])) for name in PARAMETERS))
        smallest = STEM_FLOPS + sum(min(flops for flops, _ in stage) for stage in space._stages)
        if smallest >= FLOPS_LIMIT:
            raise ArchitectureError(
                f"the smallest architecture needs {smallest / 1e6:.1f} M FLOPs at {RESOLUTION[1]}x{RESOLUTION[0]}, "
                f"which is not below {FLOPS_LIMIT / 1e6:g} M"
            )
        return space

    @property
    def count(self) -> int:
        """Number of architectures."""
        return self._combinations.count

    def at(self, place: int) -> dict[str, Any]:
        """Return the canonical values of all `PARAMETERS` of one architecture; `place` is from 0 to `count` - 1."""
        indices = self._combinations.at(place)
        active = {k: v for stage, i in zip(self._stages, indices, strict=True) for k, v in stage[i][1].items()}
        return {name: active.get(name, self.choices[name][0]) for name in PARAMETERS}

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw an architecture uniformly, in the form of `at`."""
        return self.at(int(rng.integers(self.count)))

    def canonical(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the canonical values of the architecture with these values, each one of the `choices`.

        Raises:
            ArchitectureError: the architecture is not below the FLOPs limit.
        """
        Architecture.of(values)
        unused = inactive(values)
        return {name: self.choices[name][0] if name in unused else values[name] for name in PARAMETERS}

    @cached_property
    def _combinations(self) -> _Combinations:
        return _Combinations([[flops for flops, _ in stage] for stage in self._stages], FLOPS_LIMIT - 1 - STEM_FLOPS)


@lru_cache(maxsize=8)
def _shared(choices: tuple[tuple[str, tuple[Any, ...]], ...]) -> ArchitectureSpace:
    return ArchitectureSpace(dict(choices))


def _stage_choices(number: int, choices: Mapping[str, Sequence[Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """FLOPs and active parameters of every choice of a stage's blocks."""
    stage = STAGES[number - 1]
    for depth in choices.get(f"stage{number}_depth", stage.depths):
        names = [f"stage{number}_block{b}_{what}" for b in range(1, int(depth) + 1) for what in ("expand", "kernel")]
        values = [choices.get(name, stage.expands if "expand" in name else stage.kernels) for name in names]
        for chosen in itertools.product(*values):
            blocks = [Block(*map(int, pair)) for pair in zip(chosen[::2], chosen[1::2], strict=True)]
            active = {f"stage{number}_depth": depth, **dict(zip(names, chosen, strict=True))}
            yield stage_flops(number, blocks), active


class _Combinations:
    """All choices of one entry from each list whose sum is at most `limit`; the smallest sum must be.

    Dynamic programming: the sums of the last lists are counted one list at a time, as multiples of their greatest
    common divisor above the smallest sum. The paper's space needs tables of 225,476 sums.
    """

    def __init__(self, lists: Sequence[Sequence[int]], limit: int) -> None:
        above = [np.array(entries) - min(entries) for entries in lists]
        unit = np.gcd.reduce(np.concatenate(above)) or 1
        self._lists = [entries // unit for entries in above]
        most = sum(entries.max() for entries in self._lists)
        self._room = int(min((limit - sum(map(min, lists))) // unit, most))
        # tables[k][room]: number of choices from the lists after the k-th whose sum is at most room
        self._tables = [np.ones(self._room + 1, np.int64)]
        for entries in reversed(self._lists[1:]):
            table = np.zeros_like(self._tables[0])
            for entry, times in zip(*np.unique(entries[entries <= self._room], return_counts=True), strict=True):
                table[entry:] += times * self._tables[0][: self._room + 1 - entry]
            self._tables.insert(0, table)

    @property
    def count(self) -> int:
        """Number of choices."""
        return int(self._ways(0, self._room)[-1])

    def at(self, place: int) -> list[int]:
        """Return the index of the chosen entry in each list, for `place` from 0 to `count` - 1."""
        indices, room = [], self._room
        for k, entries in enumerate(self._lists):
            ways = self._ways(k, room)
            index = int(np.searchsorted(ways, place, side="right"))
            place -= int(ways[index - 1]) if index else 0
            room -= int(entries[index])
            indices.append(index)
        return indices

    def _ways(self, k: int, room: int) -> NDArray[np.int64]:
        """Number of choices within the room from list k's first i + 1 entries and all later lists, for each i."""
        rest = room - self._lists[k]
        return np.where(rest >= 0, self._tables[k][np.maximum(rest, 0)], 0).cumsum()
