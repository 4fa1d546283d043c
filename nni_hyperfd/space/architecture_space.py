"""The architectures among which a search space chooses, counted and drawn exactly below the FLOPs limit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

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
    """Some values for each of `PARAMETERS`; an architecture belongs to it if it lies below the FLOPs limit.

    A configuration has values for blocks beyond the depth of their stage as well. They choose nothing; a canonical
    configuration has the first value of each such parameter. Made by `of`.
    """

    def __init__(self, choices: Mapping[str, Sequence[Any]]) -> None:
        self.choices = choices
        self._stages = [list(_stage_choices(number, choices)) for number in range(1, len(STAGES) + 1)]

    @classmethod
    def of(cls, choices: Mapping[str, Sequence[Any]]) -> ArchitectureSpace:
        """choices: name -> values. Equal choices share one space, whose tables take half a second to make.

        Raises:
            ArchitectureError: a parameter is missing, a value is not one of `PARAMETERS`', or all lies over the limit.
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
        """How many architectures it has."""
        return self._combinations.count

    def at(self, place: int) -> dict[str, Any]:
        """One of the `count` architectures: its canonical values of all `PARAMETERS`."""
        indices = self._combinations.at(place)
        active = {k: v for stage, i in zip(self._stages, indices, strict=True) for k, v in stage[i][1].items()}
        return {name: active.get(name, self.choices[name][0]) for name in PARAMETERS}

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """As `at`; every architecture is alike."""
        return self.at(int(rng.integers(self.count)))

    def canonical(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The canonical values of an architecture, from values that are among the `choices`.

        Raises:
            ArchitectureError: the architecture lies over the FLOPs limit.
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
    """FLOPs and active parameters of everything that a stage can be."""
    stage = STAGES[number - 1]
    for depth in choices.get(f"stage{number}_depth", stage.depths):
        names = [f"stage{number}_block{b}_{what}" for b in range(1, int(depth) + 1) for what in ("expand", "kernel")]
        values = [choices.get(name, stage.expands if "expand" in name else stage.kernels) for name in names]
        for chosen in itertools.product(*values):
            blocks = [Block(*map(int, pair)) for pair in zip(chosen[::2], chosen[1::2], strict=True)]
            active = {f"stage{number}_depth": depth, **dict(zip(names, chosen, strict=True))}
            yield stage_flops(number, blocks), active


class _Combinations:
    """One entry of each list such that their sum is at most `limit`, which the smallest sum must not exceed.

    The sums of the last lists are counted one list at a time. They are counted above the smallest sum, in the largest
    unit that they share: for the paper's space that makes tables of 225,476 sums.
    """

    def __init__(self, lists: Sequence[Sequence[int]], limit: int) -> None:
        above = [np.array(entries) - min(entries) for entries in lists]
        unit = np.gcd.reduce(np.concatenate(above)) or 1
        self._lists = [entries // unit for entries in above]
        most = sum(entries.max() for entries in self._lists)
        self._room = int(min((limit - sum(map(min, lists))) // unit, most))
        # tables[k][room]: how many ways the lists after the k-th leave to stay within the room
        self._tables = [np.ones(self._room + 1, np.int64)]
        for entries in reversed(self._lists[1:]):
            table = np.zeros_like(self._tables[0])
            for entry, times in zip(*np.unique(entries[entries <= self._room], return_counts=True), strict=True):
                table[entry:] += times * self._tables[0][: self._room + 1 - entry]
            self._tables.insert(0, table)

    @property
    def count(self) -> int:
        return int(self._ways(0, self._room)[-1])

    def at(self, place: int) -> list[int]:
        """The index of one entry in each list, for `place` from 0 to `count` - 1."""
        indices, room = [], self._room
        for k, entries in enumerate(self._lists):
            ways = self._ways(k, room)
            index = int(np.searchsorted(ways, place, side="right"))
            place -= int(ways[index - 1]) if index else 0
            room -= int(entries[index])
            indices.append(index)
        return indices

    def _ways(self, k: int, room: int) -> np.ndarray:
        """How many ways there are to fill the room with one of the first entries of list k and all later lists."""
        rest = room - self._lists[k]
        return np.where(rest >= 0, self._tables[k][np.maximum(rest, 0)], 0).cumsum()
