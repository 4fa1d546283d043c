from __future__ import annotations

import numpy as np

from nni_hyperfd.datasets.subsets import labels

IMAGE = {"width": 200, "height": 100}


def face(x, y, width, height, **flags):
    return {"bbox": [x, y, width, height], "ignore": 0, "iscrowd": 0, **flags}


def test_two_faces_by_hand():
    faces = [face(0, 0, 20, 40), face(180, 50, 20, 10), face(5, 5, 90, 90, ignore=1), face(1, 1, 9, 9, iscrowd=1)]
    found = dict(zip(labels.STATISTICS, labels.statistics(IMAGE, faces), strict=True))
    large, small = np.log(np.sqrt(800 / 20000)), np.log(np.sqrt(200 / 20000))
    expected = {
        "log faces": np.log(3),
        "log ignored faces": np.log(3),
        "smallest face": small,
        "middle face": (large + small) / 2,
        "largest face": large,
        "spread of sizes": (large - small) / 2,
        "covered share": 0.05,
        "mean x": 0,
        "mean y": (0.2 + 0.55) / 2 - 0.5,
        "spread of x": 0.45,
        "spread of y": (0.55 - 0.2) / 2,
        "log width / height of faces": (np.log(0.5) + np.log(2)) / 2,
        "log width / height of the image": np.log(2),
        "log side of the image": np.log(np.sqrt(20000)),
    }
    assert list(found) == list(expected)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), atol=1e-6)


def test_no_face_is_finite_and_smaller_than_any():
    none = labels.statistics(IMAGE, [])
    assert none.shape == (len(labels.STATISTICS),) and np.isfinite(none).all() and none[0] == 0
    assert none[2] < labels.statistics(IMAGE, [face(1, 1, 1, 1)])[2]
