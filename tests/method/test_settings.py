from __future__ import annotations

import dataclasses

import pytest

from nni_hyperfd.method import RankerSettings


def test_defaults_are_those_of_the_paper():
    assert dataclasses.asdict(RankerSettings()) == {
        "hidden": 64,
        "learning_rate": 1e-4,
        "batch_size": 4,
        "batches": 50,
        "image_batch": 32,
        "triplet_weight": 0.03,
        "margin": 0.5,
        "si_weight": 10000,
        "damping": 0.1,
        "sampling": (5, 1, 1),
        "sigma": 1.0,
        "loss": "rank",
        "exploration": 0.5,
    }


@pytest.mark.parametrize(
    "field, value",
    [
        ("loss", "l1"),
        ("hidden", 62),
        ("hidden", 0),
        ("batch_size", 0),
        ("batches", 0),
        ("image_batch", 0),
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("damping", 0),
        ("sigma", -1),
        ("margin", -0.1),
        ("triplet_weight", -1),
        ("si_weight", -1),
        ("sampling", (0, 1, 1)),
        ("sampling", (5, -1, 1)),
        ("sampling", (5, 1)),
        ("exploration", 1.1),
    ],
)
def test_a_value_out_of_range_is_named(field, value):
    with pytest.raises(ValueError, match=f"setting {field} must be"):
        RankerSettings(**{field: value})
