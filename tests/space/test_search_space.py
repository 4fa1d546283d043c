from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nni_hyperfd.space import SearchSpace, SpaceError
from nni_hyperfd.space.architecture import FLOPS_LIMIT, PARAMETERS, Architecture


def choice(*values):
    return {"_type": "choice", "_value": list(values)}


def ranged(type_, *values):
    return {"_type": type_, "_value": list(values)}


def space(**parameters):
    return SearchSpace.from_nni(parameters)


MIXED = {
    "kind": choice("a", "b", "c"),
    "size": choice(1, 2.5),
    "rate": ranged("loguniform", 0.001, 0.1),
    "count": ranged("randint", 2, 6),
}

SPACES = Path(__file__).resolve().parents[2] / "search_spaces"
NAS = json.loads((SPACES / "proxylessnas.json").read_text())
JOINT = json.loads((SPACES / "joint.json").read_text())


def rng(seed=0):
    return np.random.default_rng(seed)


# -- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "definition, message",
    [
        ({}, "it has no parameters"),
        ([], "is a list, expect a dict"),
        (None, "expect a dict"),
        ({"x": 3}, '"x" is a int, expect a dict'),
        ({"x": {"_type": "choice"}}, '"x" does not have'),
        ({"x": choice()}, "cannot encode 'x'.*non-empty"),
        ({"x": choice(1, 2, 1.0)}, "'x' names a value twice"),
        ({"x": choice("a", "a")}, "'x' names a value twice"),
        ({"x": choice(True, False)}, "cannot encode 'x', a choice among"),
        ({"x": choice(1, float("nan"))}, "'x' holds a number that is not finite"),
        ({"x": choice({"_name": "n", "y": choice(1)})}, "cannot encode 'x', a choice among"),
        ({"x": choice([1], [2])}, '"x"'),
        ({"x": ranged("normal", 0, 1)}, "cannot encode 'x' of type 'normal'"),
        ({"x": ranged("qlognormal", 0, 1, 1)}, "cannot encode 'x' of type 'qlognormal'"),
        ({"x": ranged("layer", 1)}, '"x" has unsupported type'),
        ({"x": ranged("uniform", 1, 1)}, '"x".*high > low'),
        ({"x": ranged("uniform", 0, math.inf)}, "'x' holds a number that is not finite"),
        ({"x": ranged("uniform", 0)}, '"x".*2 values'),
        ({"x": ranged("loguniform", 0, 1)}, '"x".*low > 0'),
        ({"x": ranged("quniform", 0, 1, 0)}, "'x' has a step of 0"),
        ({"x": ranged("quniform", 0, 1, -0.1)}, "'x' has a step of -0.1"),
        ({"x": ranged("randint", 3, 3)}, '"x".*high > low'),
        ({"x": ranged("randint", 0.5, 3)}, '"x".*int values'),
        ({"good": choice(1, 2), "bad": ranged("normal", 0, 1)}, "cannot encode 'bad'"),
    ],
)
def test_a_space_that_cannot_be_ranked_is_refused_with_the_parameters_name(definition, message):
    with pytest.raises(SpaceError, match=message):
        SearchSpace.from_nni(definition)


def test_the_kind_is_found_from_the_names_unless_given():
    assert SearchSpace.from_nni(MIXED).kind == "hpo"
    assert SearchSpace.from_nni(NAS).kind == "nas"
    assert SearchSpace.from_nni(NAS | {"rate": choice(1)}).kind == "joint"
    assert SearchSpace.from_nni(NAS, "nas").kind == "nas"
    assert SearchSpace.from_nni(NAS, "hpo").kind == "hpo"
    assert SearchSpace.from_nni({"stage9_depth": choice(1, 2)}).kind == "hpo"
    for definition, kind in ((MIXED, "nas"), (NAS, "joint"), (MIXED | NAS, "nas")):
        with pytest.raises(SpaceError, match=f"not {kind!r}; leave `space` out"):
            SearchSpace.from_nni(definition, kind)


# -- sampling --------------------------------------------------------------------------------------------------------


def test_a_small_space_is_enumerated_fully_in_an_order_of_the_seed():
    small = space(a=choice("x", "y"), b=choice(1, 2, 3), c=ranged("randint", 4, 6), d=ranged("quniform", 0, 1, 0.5))
    assert small.size == 2 * 3 * 2 * 3
    drawn = small.sample(1000, rng())
    keys = [small.key(c) for c in drawn]
    assert len(keys) == 36 and len(set(keys)) == 36
    assert {c["c"] for c in drawn} == {4, 5} and {c["d"] for c in drawn} == {0.0, 0.5, 1.0}
    assert small.sample(1000, rng()) == drawn
    assert small.sample(1000, rng(1)) != drawn
    assert small.sample(5, rng()) == drawn[:5]


def test_samples_of_a_large_space_are_distinct_inside_it_and_follow_the_seed():
    large = SearchSpace.from_nni(MIXED)
    assert large.size == math.inf
    drawn = large.sample(300, rng())
    assert len({large.key(c) for c in drawn}) == 300
    assert [large.canonical(c) for c in drawn] == drawn
    assert large.sample(300, rng()) == drawn
    assert large.sample(300, rng(1)) != drawn
    assert large.sample(0, rng()) == []
    # What goes into the state and to NNI is JSON, and comes back as it was.
    assert json.loads(json.dumps(drawn)) == drawn


def test_a_space_of_many_choices_is_sampled_without_being_enumerated():
    wide = space(**{f"x{i}": choice(*range(10)) for i in range(30)})
    assert wide.size == 10**30
    assert len({wide.key(c) for c in wide.sample(50, rng())}) == 50


def test_choices_and_integers_are_drawn_uniformly():
    mixed = SearchSpace.from_nni(MIXED)
    drawn = mixed.sample(6000, rng())
    for name, values in {"kind": 3, "size": 2, "count": 4}.items():
        counts = Counter(c[name] for c in drawn)
        assert len(counts) == values
        expected = 6000 / values
        assert all(abs(n - expected) < 5 * math.sqrt(expected) for n in counts.values()), (name, counts)
    small = space(a=choice(*range(6)), b=ranged("randint", 0, 10))
    firsts = Counter(small.key(small.sample(1, rng(seed))[0]) for seed in range(3000))
    assert len(firsts) == 60 and max(firsts.values()) < 50 + 5 * math.sqrt(50)


def test_ranges_are_drawn_on_the_scale_and_the_grid_that_they_name():
    log = space(x=ranged("loguniform", 1e-4, 1.0)).sample(4000, rng())
    assert all(1e-4 <= c["x"] <= 1 for c in log)
    assert 0.45 < sum(c["x"] < 1e-2 for c in log) / 4000 < 0.55
    plain = space(x=ranged("uniform", -3, 1)).sample(4000, rng())
    assert 0.45 < sum(c["x"] < -1 for c in plain) / 4000 < 0.55
    grid = space(x=ranged("quniform", 0.1, 1.1, 0.25))
    assert sorted(c["x"] for c in grid.sample(99, rng())) == [0.1, 0.25, 0.5, 0.75, 1.0]
    assert sorted(c["x"] for c in space(x=ranged("qloguniform", 1, 8, 2)).sample(99, rng())) == [1, 2, 4, 6, 8]
    # Too many places to enumerate: drawn one by one, on the same grid.
    fine = space(x=ranged("quniform", 0, 1, 1e-6)).sample(200, rng())
    assert all(abs(c["x"] / 1e-6 - round(c["x"] / 1e-6)) < 1e-6 for c in fine)
    assert len({c["x"] for c in fine}) == 200


@pytest.mark.parametrize("low", [0, 7, -3])
def test_randint_excludes_its_upper_bound_and_may_have_one_value(low):
    one = space(x=ranged("randint", low, low + 1))
    assert one.size == 1 and one.sample(9, rng()) == [{"x": low}]
    assert one.encode([{"x": low}]).vectors.tolist() == [[1.0]]
    two = space(x=ranged("randint", low, low + 2))
    assert sorted(c["x"] for c in two.sample(9, rng())) == [low, low + 1]
    with pytest.raises(SpaceError, match=f"x: {low + 2} is no number between"):
        two.canonical({"x": low + 2})


# -- canonical, key, signature ----------------------------------------------------------------------------------------


def test_canonical_gives_the_spaces_own_values_and_key_is_shared_by_equal_configurations():
    mixed = SearchSpace.from_nni(MIXED)
    own = {"kind": "b", "size": 1, "rate": 0.1, "count": 3}
    other = {"count": 3.0, "rate": 0.1, "size": 1.0, "kind": "b"}
    assert mixed.canonical(other) == own
    assert [type(v) for v in mixed.canonical(other).values()] == [str, int, float, int]
    assert list(mixed.canonical(other)) == list(MIXED)
    assert mixed.key(own) == mixed.key(other)
    assert mixed.key(own) != mixed.key(own | {"count": 4})
    assert type(space(x=ranged("uniform", 0, 2)).canonical({"x": 1})["x"]) is float


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kind": "d"}, "kind: 'd' is none of"),
        ({"size": "1"}, "size: '1' is none of"),
        ({"size": None}, "size: None is none of"),
        ({"size": [1]}, "size:"),
        ({"rate": 0.2}, "rate: 0.2 is no number between"),
        ({"rate": "0.01"}, "rate:"),
        ({"rate": float("nan")}, "rate:"),
        ({"rate": True}, "rate:"),
        ({"count": 1}, "count: 1 is no number between"),
        ({"count": 2.5}, "count: 2.5 is no whole number"),
        ({"extra": 1}, "does not have extra"),
    ],
)
def test_canonical_refuses_what_lies_outside_the_space(change, message):
    with pytest.raises(SpaceError, match=message):
        SearchSpace.from_nni(MIXED).canonical({"kind": "a", "size": 1, "rate": 0.01, "count": 2} | change)


def test_canonical_refuses_what_is_no_whole_configuration():
    mixed = SearchSpace.from_nni(MIXED)
    with pytest.raises(SpaceError, match="lacks size, count"):
        mixed.canonical({"kind": "a", "rate": 0.01})
    for value in ([], None, "kind", 3):
        with pytest.raises(SpaceError, match="is a JSON object"):
            mixed.canonical(value)


def test_signature_is_blind_to_1_or_1_0_and_to_nothing_else():
    one = {"a": choice(1, 2), "b": choice("x", "y"), "c": ranged("quniform", 0, 2, 1)}
    same = {"a": choice(1.0, 2.0), "b": choice("x", "y"), "c": ranged("quniform", 0.0, 2.0, 1.0)}
    signature = SearchSpace.from_nni(one).signature
    assert SearchSpace.from_nni(same).signature == signature
    assert len(signature) == 64
    others = [
        {"b": one["b"], "a": one["a"], "c": one["c"]},
        one | {"a": choice(2, 1)},
        one | {"a": choice(1, 3)},
        one | {"a": choice("1", "2")},
        one | {"a": choice(1, 2, 3)},
        one | {"c": ranged("quniform", 0, 2, 0.5)},
        one | {"c": ranged("uniform", 0, 2)},
        one | {"c": ranged("quniform", 0, 3, 1)},
        {"a": one["a"], "b": one["b"], "d": one["c"]},
        {"a": one["a"], "b": one["b"]},
    ]
    signatures = {SearchSpace.from_nni(other).signature for other in others}
    assert len(signatures) == len(others) and signature not in signatures
    logarithmic = space(x=ranged("loguniform", 1, 2)).signature
    assert logarithmic != space(x=ranged("uniform", 1, 2)).signature
    assert space(x=ranged("randint", 1, 3)).signature != space(x=ranged("uniform", 1, 2)).signature


# -- encoding --------------------------------------------------------------------------------------------------------


def test_encode_is_one_hot_for_choices_and_the_place_in_the_range_for_numbers():
    mixed = SearchSpace.from_nni(MIXED)
    assert mixed.dim == 3 + 2 + 1 + 1
    encoded = mixed.encode(
        [
            {"kind": "a", "size": 2.5, "rate": 0.001, "count": 2},
            {"kind": "c", "size": 1.0, "rate": 0.1, "count": 5},
            {"kind": "b", "size": 1, "rate": 0.01, "count": 4},
        ]
    )
    rows = encoded.vectors
    assert rows.dtype == np.float32 and rows.shape == (3, 7) and len(encoded) == 3 and encoded.width == mixed.dim
    assert encoded.graphs is None and encoded.beside == ()
    expected = [[1, 0, 0, 0, 1, 0, 0], [0, 0, 1, 1, 0, 1, 1], [0, 1, 0, 1, 0, 0.5, 2 / 3]]
    np.testing.assert_allclose(rows, expected, atol=1e-6)


@pytest.mark.parametrize("definition", [MIXED, NAS, JOINT], ids=["hpo", "nas", "joint"])
def test_encode_refuses_a_strange_configuration_and_none_at_all(definition):
    whole = SearchSpace.from_nni(definition)
    with pytest.raises(ValueError, match="at least one row"):
        whole.encode([])
    with pytest.raises(SpaceError, match="lacks"):
        whole.encode([*whole.sample(1, rng()), {"kind": "a"}])


@pytest.mark.parametrize("definition", [MIXED, NAS, JOINT], ids=["hpo", "nas", "joint"])
def test_the_example_has_the_sizes_of_every_configuration(definition):
    whole = SearchSpace.from_nni(definition)
    example, others = whole.example, whole.encode(whole.sample(3, rng(1)))
    assert len(example) == 1 and whole.example is example
    assert (example.width, example.beside) == (others.width, others.beside) and example.width == whole.dim
    assert (example.graphs is None) == (others.graphs is None) == (whole.kind == "hpo")
    if example.graphs is not None:
        sizes = [(g.num_ops, g.num_stages, g.ops.shape[1]) for g in (example.graphs, others.graphs)]
        assert sizes[0] == sizes[1]


def test_encoded_samples_are_distinct_and_within_0_and_1():
    mixed = SearchSpace.from_nni(MIXED)
    rows = mixed.encode(mixed.sample(200, rng())).vectors
    assert rows.min() >= 0 and rows.max() <= 1
    assert len(np.unique(rows, axis=0)) == 200
    assert (rows[:, :3].sum(axis=1) == 1).all() and (rows[:, 3:5].sum(axis=1) == 1).all()


# -- architectures -----------------------------------------------------------------------------------------------------


def shallow(**changes):
    """A point of the architecture space whose stages are all as shallow as may be."""
    return {name: parameter.values[0] for name, parameter in PARAMETERS.items()} | changes


def test_the_search_space_files_are_what_the_code_knows():
    assert {name: tuple(spec["_value"]) for name, spec in NAS.items()} == {n: p.values for n, p in PARAMETERS.items()}
    assert JOINT == json.loads((SPACES / "hpo.json").read_text()) | NAS
    assert list(JOINT)[-len(NAS) :] == list(NAS) == list(PARAMETERS)


def test_spaces_with_architectures_count_those_below_the_limit():
    nas, joint = SearchSpace.from_nni(NAS), SearchSpace.from_nni(JOINT)
    assert nas.size == 255_545_675_121_747 and joint.size == 216 * nas.size
    assert SearchSpace.from_nni(NAS, "hpo").size == math.prod(len(p.values) for p in PARAMETERS.values())


@pytest.mark.parametrize("definition", [NAS, JOINT], ids=["nas", "joint"])
def test_samples_are_distinct_architectures_below_the_limit_and_survive_nnis_json(definition):
    whole = SearchSpace.from_nni(definition)
    drawn = whole.sample(200, rng())
    assert len({whole.key(c) for c in drawn}) == 200
    assert [whole.canonical(c) for c in drawn] == drawn and [list(c) for c in drawn] == 200 * [list(definition)]
    assert all(Architecture.of(c).flops < FLOPS_LIMIT for c in drawn)
    assert whole.sample(200, rng()) == drawn != whole.sample(200, rng(1))
    # On the way through node every whole number loses its decimal point, and nothing else changes.
    through_node = json.loads(
        json.dumps(drawn), parse_float=lambda text: int(float(text)) if text[-2:] == ".0" else float(text)
    )
    assert [whole.canonical(c) for c in through_node] == drawn
    assert [whole.key(c) for c in through_node] == [whole.key(c) for c in drawn]


def test_a_small_space_with_architectures_is_enumerated():
    fixed = {name: choice(parameter.values[0]) for name, parameter in PARAMETERS.items()}
    few = fixed | {"stage2_depth": choice(1, 2), "stage2_block2_kernel": choice(3, 5, 7), "rate": choice(1, 2)}
    small = SearchSpace.from_nni(few)
    assert small.size == 2 * (1 + 3)
    assert len({small.key(c) for c in small.sample(99, rng())}) == len(small.sample(99, rng())) == 8


def test_configurations_that_differ_in_inactive_blocks_only_are_the_same():
    nas = SearchSpace.from_nni(NAS)
    one, other = shallow(), shallow(stage2_block3_kernel=7, stage6_block4_expand=6)
    assert nas.canonical(other) == one and nas.key(other) == nas.key(one)
    encoded = nas.encode([one, other])
    np.testing.assert_array_equal(*encoded.vectors)
    np.testing.assert_array_equal(*encoded.graphs.ops)
    active = shallow(stage2_block1_kernel=7)
    assert nas.key(active) != nas.key(one) and (nas.encode([active]).vectors != encoded.vectors[0]).any()
    plain = SearchSpace.from_nni(NAS, "hpo")
    assert plain.key(other) != plain.key(one)
    assert plain.signature != nas.signature


def test_an_encoded_architecture_is_one_hot_where_active_and_zero_elsewhere():
    nas = SearchSpace.from_nni(NAS)
    assert nas.dim == 3 + 3 + 3 + 2 + 3 + 19 * (2 + 3)
    (row,) = nas.encode([shallow(stage2_depth=2, stage2_block2_kernel=5)]).vectors
    stage2 = [0, 1, 0] + [1, 0, 1, 0, 0] + [1, 0, 0, 1, 0] + [0, 0, 0, 0, 0]
    assert row[: len(stage2)].tolist() == stage2
    blocks = 2 + 1 + 2 + 3 + 2 + 1
    assert row.sum() == 5 + 2 * blocks
    joint = SearchSpace.from_nni(JOINT)
    assert joint.dim == 15 + nas.dim


@pytest.mark.parametrize("definition", [NAS, JOINT], ids=["nas", "joint"])
def test_an_architecture_over_the_limit_lies_outside_the_space(definition):
    whole = SearchSpace.from_nni(definition)
    largest = {name: spec["_value"][-1] for name, spec in definition.items()}
    with pytest.raises(SpaceError, match=r"needs 1358\.5 M FLOPs at 640x360, the space has those below 730 M"):
        whole.canonical(largest)


@pytest.mark.parametrize("definition", [NAS, JOINT], ids=["nas", "joint"])
def test_graphs_of_the_configurations(definition):
    whole = SearchSpace.from_nni(definition)
    drawn = whole.sample(3, rng())
    graphs = whole.encode(drawn).graphs
    assert len(graphs) == 3
    assert (graphs.ops >= 0).sum(axis=1).tolist() == [sum(map(len, Architecture.of(c).stages[1:])) for c in drawn]


def test_a_space_that_is_to_be_hpo_has_no_graphs_and_encodes_every_block():
    flat = SearchSpace.from_nni(NAS, "hpo")
    encoded = flat.encode(flat.sample(3, rng()))
    assert encoded.graphs is None and encoded.beside == ()
    assert (encoded.vectors.sum(axis=1) == len(NAS)).all()


def test_beside_the_graphs_are_the_hyper_parameters_wherever_they_stand():
    assert SearchSpace.from_nni(NAS).example.beside == ()
    joint = SearchSpace.from_nni(JOINT)
    others = [name for name in JOINT if name not in NAS]
    width = sum(joint.parameters[name].width for name in others)
    assert joint.example.beside == tuple(range(width))
    names = list(NAS)
    mixed = SearchSpace.from_nni(
        {"rate": ranged("uniform", 0, 1)} | {n: NAS[n] for n in names[:3]} | {"kind": choice("a", "b")} | NAS
    )
    before = 1 + sum(mixed.parameters[name].width for name in names[:3])
    encoded = mixed.encode(mixed.sample(5, rng()))
    assert encoded.beside == (0, before, before + 1)
    for row, configuration in zip(encoded.vectors, mixed.sample(5, rng()), strict=True):
        kind = configuration["kind"]
        expected = [configuration["rate"], kind == "a", kind == "b"]
        np.testing.assert_allclose(row[list(encoded.beside)], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({"stage2_depth": choice(1, 2)}, "chosen by stage2_block1_expand.*say space: hpo in classArgs"),
        (NAS | {"stage2_depth": choice(1, 5)}, r"stage2_depth may be 5, which is none of \[1, 2, 3\]"),
        (NAS | {"stage2_depth": ranged("randint", 1, 4)}, "'stage2_depth' has to be a choice"),
        ({n: choice(p.values[-1]) for n, p in PARAMETERS.items()}, "the smallest architecture needs 1358.5 M FLOPs"),
    ],
)
def test_architecture_parameters_that_make_no_architecture_are_refused(definition, message):
    with pytest.raises(SpaceError, match=f"search space: .*{message}"):
        SearchSpace.from_nni(definition)
