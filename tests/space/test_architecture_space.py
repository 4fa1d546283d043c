from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from nni_hyperfd.space.architecture import FLOPS_LIMIT, PARAMETERS, Architecture, ArchitectureError, inactive
from nni_hyperfd.space.architecture_space import ArchitectureSpace

ALL = {name: parameter.values for name, parameter in PARAMETERS.items()}
LARGEST = {name: (parameter.values[-1],) for name, parameter in PARAMETERS.items()}

NARROW = {name: parameter.values[-1:] for name, parameter in PARAMETERS.items() if "stage5" not in name} | {
    **{name: parameter.values[:1] for name, parameter in PARAMETERS.items() if "stage5" in name},
    "stage2_depth": (1, 3),
    "stage2_block2_kernel": (3, 7),
    "stage2_block3_expand": (6, 3),
    "stage3_depth": (1,),
    "stage4_depth": (2, 3),
    "stage4_block3_kernel": (5, 7),
    "stage4_block1_expand": (3, 6),
    "stage6_depth": (2, 4),
    "stage7_block1_kernel": (3, 5, 7),
}
"""Some of it lies over the limit, and some of its blocks may be inactive."""


def by_brute_force(choices: dict) -> set[tuple]:
    """Every architecture below the limit, from every point of the space."""
    free = {name: values for name, values in choices.items() if len(values) > 1}
    found = set()
    for point in itertools.product(*free.values()):
        values = {name: values[0] for name, values in choices.items()} | dict(zip(free, point, strict=True))
        try:
            found.add(Architecture.of(values).stages)
        except ArchitectureError:
            continue
    return found


def test_a_narrow_space_has_exactly_the_architectures_below_the_limit():
    space = ArchitectureSpace.of(NARROW)
    expected = by_brute_force(NARROW)
    assert 0 < len(expected) < 180, "without the limit there would be 180"
    chosen = [space.at(place) for place in range(space.count)]
    assert len(chosen) == len(expected) and {Architecture.of(values).stages for values in chosen} == expected
    assert all(space.canonical(values) == values for values in chosen)


def test_the_papers_space_counted_another_way():
    """Without the limit 1.45e15; below it, the share that is found by drawing points of the space at random."""
    stages = [
        sum(6**depth for depth in depths) for depths in ((1, 2, 3), (1, 2, 3), (2, 3, 4), (3, 4), (2, 3, 4), (1,))
    ]
    assert math.prod(stages) == 1_447_052_760_824_832
    space, rng = ArchitectureSpace.of(ALL), np.random.default_rng(0)
    depths = {name: values for name, values in ALL.items() if name.endswith("depth")}
    below, draws = 0, 2000
    for _ in range(draws):
        values = {name: values[rng.integers(len(values))] for name, values in ALL.items()}
        for name, choice in depths.items():  # as many architectures have a depth as there are blocks of that many
            weights = np.array([6.0**depth for depth in choice])
            values[name] = int(rng.choice(choice, p=weights / weights.sum()))
        try:
            Architecture.of(values)
            below += 1
        except ArchitectureError:
            continue
    share = space.count / math.prod(stages)
    assert abs(below / draws - share) < 4 * math.sqrt(share * (1 - share) / draws)


def test_samples_are_below_the_limit_and_every_architecture_is_alike():
    space, rng = ArchitectureSpace.of(NARROW), np.random.default_rng(0)
    drawn = Counter(Architecture.of(space.sample(rng)).stages for _ in range(50 * space.count))
    assert len(drawn) == space.count and max(drawn.values()) < 50 + 5 * math.sqrt(50)
    whole = ArchitectureSpace.of(ALL)
    assert all(Architecture.of(whole.sample(rng)).flops < FLOPS_LIMIT for _ in range(100))


def test_what_is_inactive_has_the_first_value():
    space = ArchitectureSpace.of(NARROW)
    values = {name: choice[-1] for name, choice in NARROW.items()} | {"stage2_depth": 1, "stage6_depth": 2}
    canonical = space.canonical(values)
    changed = {name for name in values if canonical[name] != values[name]}
    assert changed == {"stage2_block2_kernel", "stage2_block3_expand"} and changed < inactive(values)
    assert (canonical["stage2_block2_kernel"], canonical["stage2_block3_expand"]) == (3, 6)
    assert space.canonical(canonical) == canonical


def test_one_architecture_is_a_space():
    space = ArchitectureSpace.of({name: (parameter.values[0],) for name, parameter in PARAMETERS.items()})
    assert space.count == 1 and space.at(0) == {name: parameter.values[0] for name, parameter in PARAMETERS.items()}


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"stage2_depth": (1,)}, "chosen by stage2_block1_expand, stage2_block1_kernel"),
        (ALL | {"stage2_depth": (1, 4)}, r"stage2_depth may be 4, which is none of \[1, 2, 3\]"),
        (ALL | {"stage2_depth": ("1",)}, "stage2_depth may be '1'"),
        (ALL | {"stage7_block1_kernel": (3, 9)}, "stage7_block1_kernel may be 9"),
        (LARGEST, r"smallest architecture needs 1358\.5 M FLOPs at 640x360, which is not below 730 M"),
    ],
)
def test_choices_without_an_architecture_are_refused(choices, message):
    with pytest.raises(ArchitectureError, match=message):
        ArchitectureSpace.of(choices)
