"""Reading and writing image files."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from nni_hyperfd.datasets.images import read_image, save_image


def test_names_that_are_not_utf_8_and_files_that_have_changed(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    path = tmp_path / "\udce4.png"
    save_image(path, picture)
    np.testing.assert_array_equal(read_image(path), picture)
    for content in (b"", b"no image"):
        path.write_bytes(content)
        with pytest.raises(OSError, match="has changed since the check"):
            read_image(path)


def test_the_suffix_says_the_format(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    save_image(tmp_path / "picture.jpg", picture)
    assert cv2.imread(str(tmp_path / "picture.jpg")).shape == picture.shape
    with pytest.raises(ValueError, match=r"\.jpg or \.png"):
        save_image(tmp_path / "picture.gif", picture)
    assert [path.name for path in tmp_path.iterdir()] == ["picture.jpg"]
