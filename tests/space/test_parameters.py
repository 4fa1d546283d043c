"""One parameter at a time; what whole spaces make of them is in test_search_space.py."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nni_hyperfd.space.parameters import Choice, Interval, SpaceError, from_nni


def rng(seed=0):
    return np.random.default_rng(seed)


# -- choices -----------------------------------------------------------------------------------------------------------


def test_a_choice_is_encoded_one_hot_in_its_own_order():
    choice = Choice(("b", "a", 3))
    assert (choice.width, choice.count) == (3, 3)
    assert [choice.at(place) for place in range(3)] == ["b", "a", 3]
    assert [choice.encode(value) for value in ("b", "a", 3)] == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert {choice.sample(rng(seed)) for seed in range(40)} == {"b", "a", 3}


def test_a_choice_gives_its_own_value_for_an_equal_number():
    choice = Choice((1, 2.5, "1"))
    for given, own in ((1.0, 1), (1, 1), (2.5, 2.5), ("1", "1")):
        assert choice.canonical(given) == own and type(choice.canonical(given)) is type(own)
    for given in ("2.5", 2, None, [1], float("nan")):
        with pytest.raises(SpaceError, match=r"is none of \[1, 2.5, '1'\]"):
            choice.canonical(given)


# -- intervals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "value", "place"),
    [
        (Interval(-2, 6), 0, 0.25),
        (Interval(0.001, 1.0, log=True), 0.1, 2 / 3),
        (Interval(2, 5, integer=True), 4, 2 / 3),
        (Interval(1, 8, log=True, step=2.0), 2, 1 / 3),
        (Interval(-2, 6), -2, 0),
        (Interval(-2, 6), 6, 1),
    ],
)
def test_an_interval_is_encoded_by_the_place_on_its_scale(interval, value, place):
    assert interval.width == 1
    assert interval.encode(value) == [pytest.approx(place)]


@pytest.mark.parametrize(
    ("interval", "values", "drawn"),
    [
        (Interval(-1, 2, integer=True), [-1, 0, 1, 2], 4),
        (Interval(0, 1, step=0.5), [0, 0.5, 1], 3),
        (Interval(0.1, 1.1, step=0.25), [0.1, 0.25, 0.5, 0.75, 1.0], 5),
        # Only a draw of exactly 1 would be rounded down to it, as with NNI itself; enumeration alone brings it up.
        (Interval(1, 8, log=True, step=2.0), [1, 2, 4, 6, 8], 4),
    ],
)
def test_the_values_of_an_interval_can_be_counted(interval, values, drawn):
    assert interval.count == len(values)
    assert [interval.at(place) for place in range(len(values))] == pytest.approx(values)
    assert sorted({interval.sample(rng(seed)) for seed in range(200)}) == pytest.approx(values[-drawn:])


def test_an_interval_without_a_step_has_no_end_of_values():
    assert Interval(0, 1).count == Interval(1, 2, log=True).count == math.inf


def test_a_plain_interval_is_drawn_uniformly_and_a_logarithmic_one_on_its_scale():
    plain, logarithmic, generator = Interval(-3, 1), Interval(1e-4, 1.0, log=True), rng()
    for interval, middle in ((plain, -1), (logarithmic, 1e-2)):
        drawn = [interval.sample(generator) for _ in range(2000)]
        assert all(interval.low <= value <= interval.high for value in drawn)
        assert abs(sum(value < middle for value in drawn) - 1000) < 110  # standard deviation 22


def test_whole_numbers_are_drawn_with_both_bounds():
    drawn = [Interval(2, 5, integer=True).sample(rng(seed)) for seed in range(80)]
    assert set(drawn) == {2, 3, 4, 5} and all(type(value) is int for value in drawn)


@pytest.mark.parametrize("value", [1.9, 5.1, "3", None, True, float("nan"), float("inf"), [3]])
def test_what_lies_outside_an_interval_is_refused(value):
    for interval in (Interval(2, 5), Interval(2, 5, integer=True)):
        with pytest.raises(SpaceError, match="is no number between 2 and 5"):
            interval.canonical(value)


def test_an_interval_gives_numbers_of_its_type():
    assert type(Interval(2, 5).canonical(3)) is float
    assert type(Interval(2, 5, integer=True).canonical(3.0)) is int
    with pytest.raises(SpaceError, match=r"2\.5 is no whole number"):
        Interval(2, 5, integer=True).canonical(2.5)


# -- reading NNI's -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "value", "parameter"),
    [
        ("choice", [1, "a"], Choice((1, "a"))),
        ("randint", [2, 6], Interval(2, 5, integer=True)),
        ("randint", [2, 3], Choice((2,))),
        ("uniform", [0, 1], Interval(0, 1)),
        ("quniform", [0, 1, 0.1], Interval(0, 1, step=0.1)),
        ("loguniform", [0.1, 1], Interval(0.1, 1, log=True)),
        ("qloguniform", [1, 9, 2], Interval(1, 9, log=True, step=2)),
    ],
)
def test_each_type_that_can_be_encoded(type_, value, parameter):
    assert from_nni("x", type_, value) == parameter


@pytest.mark.parametrize(
    ("type_", "value", "message"),
    [
        ("choice", [], "cannot encode 'x', a choice among"),
        ("choice", [{"_name": "n"}], "cannot encode 'x', a choice among"),
        ("choice", [None], "cannot encode 'x', a choice among"),
        ("choice", [True], "cannot encode 'x', a choice among"),
        ("choice", [1, 1.0], "'x' names a value twice"),
        ("choice", [1, float("inf")], "'x' holds a number that is not finite"),
        ("uniform", [0, float("nan")], "'x' holds a number that is not finite"),
        ("quniform", [0, 1, 0], "'x' has a step of 0; write one greater than 0"),
        ("normal", [0, 1], "cannot encode 'x' of type 'normal'"),
    ],
)
def test_what_cannot_be_encoded_is_named(type_, value, message):
    with pytest.raises(SpaceError, match=message):
        from_nni("x", type_, value)
