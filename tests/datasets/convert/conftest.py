from __future__ import annotations

import numpy as np
import pytest
import scipy.io
from PIL import Image


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def save_image():
    """Write an image of random pixels, so that no two are the same; the path."""
    random = np.random.default_rng(0)

    def save(path, width=100, height=80):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        return path

    return save


@pytest.fixture
def save_wider_level():
    """Write one of WIDER FACE's lists: in the second image of two events the faces of these numbers are on it."""

    def cells(*values):
        array = np.empty((len(values), 1), dtype=object)
        for place, value in enumerate(values):
            array[place, 0] = value
        return array

    def save(folder, level, counted):
        variables = {
            "event_list": cells("0--Parade", "1--Handshaking"),
            "file_list": cells(cells(), cells("1_Handshaking_Handshaking_1_35", "empty")),
            "gt_list": cells(cells(), cells(np.array(counted, np.uint8).reshape(-1, 1), np.empty((0, 0)))),
        }
        scipy.io.savemat(folder / f"wider_{level}_val.mat", variables)

    return save
