from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nni_hyperfd.datasets.subsets import report
from nni_hyperfd.datasets.subsets.pool import Pool

SPLITS = np.array(["train"] * 60 + ["test"] * 40)


def test_the_numbers_of_a_subset():
    faces = [[{"bbox": [0, 0, side, side], "ignore": int(side == 9), "iscrowd": 0} for side in own] for own in SIDES]
    pool = Pool([Path()] * 3, np.array(["train", "train", "val"]), [{}] * 3, faces)
    looks = np.array([[1, 2, 3], [10, 20, 30], [100, 200, 300]], np.float32)
    row = report.describe(pool, looks, np.array([0, 2]))
    assert row == {
        **{"train": 1, "val": 1, "test": 0, "faces": 3, "faces_per_image": 1.5, "face_size": 4},
        **{"brightness": 50.5, "contrast": 101, "blur": 151.5},
    }
    assert np.isnan(report.describe(pool, looks, np.array([1]))["face_size"])


SIDES = [[2, 4, 9], [9], [8]]


def test_a_classifier_tells_what_can_be_told():
    random = np.random.default_rng(0)
    points = random.normal(size=(100, 4))
    own = np.flatnonzero(points[:, 1] > 0)
    assert report.told_apart(points, own, SPLITS) > 0.97
    assert 0.2 < report.told_apart(points, random.choice(100, 50, replace=False), SPLITS) < 0.8
    assert np.isnan(report.told_apart(points, np.arange(100), SPLITS))
    assert np.isnan(report.told_apart(points, np.arange(60), SPLITS))


def test_condensed_are_whitened_components(monkeypatch):
    monkeypatch.setattr(report, "_FITTED", 300)
    random = np.random.default_rng(0)
    features = (random.normal(size=(1000, 6)) @ random.normal(size=(6, 50))).astype(np.float32)
    points = report.condensed(features)
    assert points.shape == (1000, 20) and np.isfinite(points).all()
    np.testing.assert_allclose(np.cov(points[:, :6].T), np.eye(6), atol=0.3)


@pytest.mark.parametrize("count", [1, 30])
def test_the_figure_and_the_table(tmp_path, count):
    rows = [
        {"subset": f"s{i}", "feature": "ab"[i % 2], **{name: i + 1.0 for name in report.MEASURES}} for i in range(count)
    ]
    report.draw_spread(rows, rows[0], tmp_path / "spread.png")
    report.write_table(rows, tmp_path / "subsets.csv")
    assert (tmp_path / "spread.png").read_bytes()[:4] == b"\x89PNG"
    lines = (tmp_path / "subsets.csv").read_text().splitlines()
    assert lines[:2] == ["subset,feature,faces_per_image,face_size,brightness,blur", "s0,a,1,1,1,1"]
    assert len(lines) == count + 1 and len(list(tmp_path.iterdir())) == 2
