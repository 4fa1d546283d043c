from __future__ import annotations

import cv2
import numpy as np
import pytest

from nni_hyperfd.datasets.subsets import looks


def test_a_grey_picture_has_its_brightness_and_nothing_else():
    values = looks.look(np.full((50, 400, 3), 100, np.uint8))
    assert values[:3].tolist() == [100, 0, 0] and values[3:].tolist() == [0] * 64


def test_blur_and_scale():
    random = np.random.default_rng(0)
    sharp = cv2.resize(random.integers(0, 256, (40, 40, 3), np.uint8), (320, 320), interpolation=cv2.INTER_NEAREST)
    blurred = cv2.GaussianBlur(sharp, (0, 0), 5)
    assert looks.look(sharp)[2] > 10 * looks.look(blurred)[2]
    twice = cv2.resize(sharp, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    np.testing.assert_allclose(looks.look(twice), looks.look(sharp), rtol=1e-5)


def test_the_hash_tells_where_it_gets_brighter_to_the_right():
    ramp = np.repeat(np.arange(9, dtype=np.uint8)[None], 8, axis=0) * 20
    bits = looks.look(cv2.merge([ramp] * 3))[3:]
    assert bits.tolist() == [1] * 64
    assert looks.look(cv2.merge([ramp[:, ::-1].copy()] * 3))[3:].tolist() == [0] * 64


@pytest.mark.parametrize("distance", [0, 3])
def test_distinct_beside_a_slow_version(distance, monkeypatch):
    monkeypatch.setattr(looks, "_CHUNK", 7)
    bits = np.random.default_rng(1).integers(0, 2, (60, 8))
    kept: list[int] = []
    for place, row in enumerate(bits):
        if all(np.sum(row != bits[other]) > distance for other in kept):
            kept.append(place)
    assert looks.distinct(bits, distance).tolist() == kept and 1 < len(kept) < 60


def test_distinct_of_many_equal_and_of_one():
    assert looks.distinct(np.zeros((500, 64)), 3).tolist() == [0]
    assert looks.distinct(np.zeros((1, 64)), 3).tolist() == [0]
