from __future__ import annotations

import json

import numpy as np
import pytest

from nni_hyperfd.privacy import projection
from nni_hyperfd.privacy.projection import Projection, ProjectionError

RNG = np.random.default_rng(0)
VECTORS = [RNG.normal(size=(40, 64)) * np.geomspace(5, 0.01, 64) + shift for shift in (0.0, 1.0, 3.0)]


def test_the_servers_images_have_unit_variance_and_half_of_them_are_within_the_radius():
    made = projection.fit(VECTORS, "a", 84)
    rows = (np.vstack(VECTORS) - made.center) @ made.directions.T
    assert made.directions.shape == (8, 64)
    np.testing.assert_allclose(np.cov(rows.T, bias=True), np.eye(8), atol=1e-9)
    assert np.median(np.linalg.norm(rows, axis=1)) == pytest.approx(made.radius)
    assert max(map(np.linalg.norm, made.bounded(np.vstack(VECTORS)))) <= made.radius


def test_lifting_is_the_way_back():
    made = projection.fit(VECTORS, "a", 84)
    values = RNG.normal(size=8)
    np.testing.assert_allclose((made.lifted(values) - made.center) @ made.directions.T, values, atol=1e-9)
    inside = made.lifted(np.full(8, 0.1))
    np.testing.assert_allclose(made.described(np.array([inside, inside])), inside, atol=1e-9)


def test_whatever_the_vectors_hold_they_are_bounded():
    made = projection.fit(VECTORS, "a", 84)
    rows = np.full((4, 64), 3e38, dtype=np.float32)
    rows[1, 3], rows[2, 3], rows[3] = np.nan, np.inf, -np.inf
    bounded = made.bounded(rows)
    assert np.isfinite(bounded).all() and max(map(np.linalg.norm, bounded)) <= made.radius
    assert not bounded[1:].any() and np.isfinite(made.described(rows)).all()


def test_few_images_leave_fewer_directions():
    assert projection.fit([VECTORS[0][:4]], "a", 84).directions.shape == (3, 64)
    with pytest.raises(ProjectionError, match="all have the same vector"):
        projection.fit([np.ones((5, 64))], "a", 84)


def test_a_file_keeps_every_number(tmp_path):
    made = projection.fit(VECTORS, "a", 84)
    projection.save(made, tmp_path / "p.json")
    read = projection.load(tmp_path / "p.json")
    assert (read.extractor, read.width, read.radius) == ("a", 84, made.radius)
    assert np.array_equal(read.center, made.center) and np.array_equal(read.directions, made.directions)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "format 2, this nni_hyperfd reads 1"),
        ({"radius": 0}, "radius above 0"),
        ({"radius": float("nan")}, "must be finite"),
        ({"directions": []}, "directions"),
        ({"directions": [[1.0] * 63]}, "directions"),
        ({"center": ["x"] * 64}, "could not convert"),
        ({"center": None}, "center"),
    ],
)
def test_what_is_no_projection_is_refused(tmp_path, change, reason):
    projection.save(projection.fit(VECTORS, "a", 84), tmp_path / "p.json")
    document = json.loads((tmp_path / "p.json").read_text()) | change
    (tmp_path / "p.json").write_text(json.dumps(document))
    with pytest.raises(ProjectionError, match=f"p.json: it is no projection.*{reason}"):
        projection.load(tmp_path / "p.json")
    with pytest.raises(ProjectionError, match="No such file"):
        projection.load(tmp_path / "q.json")


def test_the_parts_must_fit():
    with pytest.raises(ProjectionError):
        Projection("a", 84, np.zeros(64), np.zeros((8, 63)), 1.0)
