from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from nni_hyperfd.space import architecture
from nni_hyperfd.space.architecture import FLOPS_LIMIT, PARAMETERS, STAGES, Architecture, ArchitectureError, Block

SMALLEST = {name: parameter.values[0] for name, parameter in PARAMETERS.items()}
MOBILENET = tuple(((6, 3) if number else (1, 3),) * depth for number, depth in enumerate((1, 2, 3, 4, 3, 3, 1)))


def test_the_parameters_are_those_of_the_papers_table():
    """Depth 1, 1-3, 1-3, 2-4, 3-4, 2-4, 1; expand ratio and kernel for each block that may be there, save stage 1's."""
    depths = {name: parameter.values for name, parameter in PARAMETERS.items() if name.endswith("_depth")}
    assert depths == {f"stage{n}_depth": d for n, d in zip(range(2, 7), [s.depths for s in STAGES[1:6]], strict=True)}
    blocks = {2: 3, 3: 3, 4: 4, 5: 4, 6: 4, 7: 1}
    expected = {f"stage{s}_block{b}_{what}" for s, n in blocks.items() for b in range(1, n + 1) for what in WHAT}
    assert PARAMETERS.keys() - depths.keys() == expected and len(PARAMETERS) == 5 + 2 * 19
    for name in expected:
        assert PARAMETERS[name].values == WHAT[name.rpartition("_")[2]]


WHAT = {"expand": (3, 6), "kernel": (3, 5, 7)}


def test_parameters_are_read_as_blocks():
    parameters = SMALLEST | {
        "stage3_depth": 2,
        "stage3_block1_kernel": 7,
        "stage3_block2_expand": 6,
        "learning_rate": 1,
    }
    stages = Architecture.of(parameters).stages
    assert [len(stage) for stage in stages] == [1, 1, 2, 2, 3, 2, 1]
    assert stages[0] == (Block(1, 3),) and stages[2] == (Block(3, 7), Block(6, 3)) and stages[6] == (Block(3, 3),)


def test_what_nnis_json_makes_of_whole_numbers_is_read_alike():
    floats = {name: float(value) for name, value in SMALLEST.items()}
    assert Architecture.of(floats) == Architecture.of(SMALLEST)
    assert all(type(number) is int for stage in Architecture.of(floats).stages for block in stage for number in block)


def test_blocks_beyond_the_depth_are_inactive():
    assert architecture.inactive(SMALLEST | {"stage2_depth": 2, "stage4_depth": 4}) == {
        *(f"stage2_block3_{what}" for what in WHAT),
        *(f"stage3_block{b}_{what}" for b in (2, 3) for what in WHAT),
        *(f"stage5_block4_{what}" for what in WHAT),
        *(f"stage6_block{b}_{what}" for b in (3, 4) for what in WHAT),
    }
    changed = SMALLEST | {"stage2_block3_kernel": 7, "stage6_block4_expand": 6}
    assert Architecture.of(changed) == Architecture.of(SMALLEST)
    assert Architecture.of(SMALLEST | {"stage2_block1_kernel": 7}) != Architecture.of(SMALLEST)


# -- FLOPs -------------------------------------------------------------------------------------------------------------


def test_flops_of_one_block_by_hand():
    """Stage 5's first block, expand 3 and kernel 5: 32 channels on 40x23 cells become 96, and 48."""
    cells = 40 * 23  # 640 / 16 and 360 / 16, rounded up
    assert architecture.stage_flops(5, [Block(3, 5)]) == 2 * cells * (32 * 96 + 25 * 96 + 96 * 48)
    more = architecture.stage_flops(5, [Block(3, 5), Block(6, 3)])
    assert more - architecture.stage_flops(5, [Block(3, 5)]) == 2 * cells * (48 * 288 + 9 * 288 + 288 * 48)


def test_flops_of_the_stem_and_the_fixed_stage_by_hand():
    assert architecture.STEM_FLOPS == 2 * 320 * 180 * 27 * 16
    assert architecture.stage_flops(1, [Block(1, 3)]) == 2 * 320 * 180 * (9 * 16 + 16 * 8)


def test_the_limit_lies_just_above_mobilenetv2_of_half_width():
    assert Architecture(MOBILENET).flops == 728_697_600 < FLOPS_LIMIT == 730_000_000


def test_an_architecture_over_the_limit_is_refused_when_it_is_proposed():
    largest = {name: parameter.values[-1] for name, parameter in PARAMETERS.items()}
    with pytest.raises(ArchitectureError, match=r"needs 1358\.5 M FLOPs at 640x360, the space has those below 730 M"):
        Architecture.of(largest)
    assert Architecture.largest().flops == 1_358_496_000
    assert [len(stage) for stage in Architecture.largest().stages] == [1, 3, 3, 4, 4, 4, 1]


# -- graphs ------------------------------------------------------------------------------------------------------------


def test_graphs_are_chains_of_the_active_blocks():
    graphs = architecture.graphs([Architecture(MOBILENET), Architecture.of(SMALLEST | {"stage6_block2_kernel": 5})])
    assert graphs.ops.shape == (2, 19) and (graphs.num_ops, graphs.num_stages) == (6, 6)
    assert (graphs.ops[0] >= 0).sum() == 16 and set(graphs.ops[0][graphs.ops[0] >= 0]) == {3}
    second = graphs.ops[1]
    assert second.tolist() == [0, -1, -1, 0, -1, -1, 0, 0, -1, -1, 0, 0, 0, -1, 0, 1, -1, -1, 0]
    assert graphs.stages[1].tolist() == 3 * [0] + 3 * [1] + 4 * [2] + 4 * [3] + 4 * [4] + [5]
    active = np.flatnonzero(second >= 0)
    assert np.argwhere(graphs.adjacency[1]).tolist() == np.stack([active[:-1], active[1:]], axis=1).tolist()
    assert architecture.graphs([]).ops.shape == (0, 19)


def test_every_operation_has_its_own_number():
    pairs = [(expand, kernel) for expand in (3, 6) for kernel in (3, 5, 7)]
    parameters = [SMALLEST | {"stage7_block1_expand": e, "stage7_block1_kernel": k} for e, k in pairs]
    graphs = architecture.graphs([Architecture.of(one) for one in parameters])
    assert graphs.ops[:, -1].tolist() == [0, 1, 2, 3, 4, 5]


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage2_depth": 4}, "stage2_depth is 4; it must be 1 or 2 or 3"),
        ({"stage2_depth": 0}, "stage2_depth is 0"),
        ({"stage5_depth": 2}, "stage5_depth is 2; it must be 3 or 4"),
        ({"stage2_depth": "2"}, "stage2_depth is '2'"),
        ({"stage2_depth": True}, "stage2_depth is True"),
        ({"stage2_depth": None}, "stage2_depth is None"),
        ({"stage2_depth": [1]}, r"stage2_depth is \[1\]"),
        ({"stage4_block1_kernel": 9}, "stage4_block1_kernel is 9; it must be 3 or 5 or 7"),
        ({"stage4_block1_kernel": float("nan")}, "stage4_block1_kernel is nan"),
        ({"stage6_block4_expand": 4}, "stage6_block4_expand is 4; it must be 3 or 6"),  # inactive, and still no value
    ],
)
def test_a_value_that_the_space_does_not_have_is_named(change, message):
    with pytest.raises(ArchitectureError, match=message):
        Architecture.of(SMALLEST | change)


def test_missing_parameters_are_named():
    with pytest.raises(ArchitectureError, match="the architecture lacks stage2_depth, stage7_block1_kernel"):
        Architecture.of({n: v for n, v in SMALLEST.items() if n not in ("stage2_depth", "stage7_block1_kernel")})


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (MOBILENET[:6], "has 7 stages, not 6"),
        ((*MOBILENET[:6], ()), "stage 7 has 1 blocks, not 0"),
        ((*MOBILENET[:6], ((6, 3), (6, 3))), "stage 7 has 1 blocks, not 2"),
        (((6, 3), *MOBILENET[1:]), "is a list of stages of"),
        ((((6, 3),), *MOBILENET[1:]), "block of stage 1 has an expand ratio of 1 and a kernel of 3, not 6 and 3"),
        ((*MOBILENET[:6], ((6, 4),)), "kernel of 3 or 5 or 7, not 6 and 4"),
        ((*MOBILENET[:6], ((6,),)), "is a list of stages of"),
        (None, "is a list of stages of"),
        (3, "is a list of stages of"),
    ],
)
def test_stages_that_the_space_does_not_have_are_named(stages, message):
    with pytest.raises(ArchitectureError, match=message):
        Architecture(stages)


def test_lists_as_configs_have_them_make_an_architecture():
    assert Architecture([[list(block) for block in stage] for stage in MOBILENET]) == Architecture(MOBILENET)


def test_importing_it_does_not_import_torch():
    code = "import sys, nni_hyperfd.space.architecture; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
