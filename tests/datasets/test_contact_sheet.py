"""Contact sheets of a split."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from nni_hyperfd.datasets import make, write_contact_sheet


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("plain") / "plain", "plain", images=(1, 4, 0), seed=3)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_contact_sheet_shows_boxes_and_landmarks(plain, tmp_path, suffix):
    path = tmp_path / f"sheet{suffix}"
    write_contact_sheet(plain, "val", path, columns=3, cell=200)
    sheet = cv2.imread(str(path)).astype(int)
    assert sheet.shape == (400, 600, 3)  # four pictures in rows of three
    blue, green, red = np.moveaxis(sheet, 2, 0)
    assert ((green > 150) & (blue < 90) & (red < 90)).sum() > 50
    assert (sheet[216:, 216:] > 250).all()
    assert not (sheet[200:, :200] > 250).all()


def test_contact_sheet_of_an_unknown_format(plain, tmp_path):
    with pytest.raises(ValueError, match=r"\.jpg or \.png"):
        write_contact_sheet(plain, "val", tmp_path / "sheet.txt")


def test_contact_sheet_of_real_data(real_data, tmp_path):
    folder = min(path.parent for path in real_data.glob("*/val.json"))
    write_contact_sheet(folder, "val", tmp_path / "sheet.jpg", count=2, columns=2, cell=50)
    assert cv2.imread(str(tmp_path / "sheet.jpg")).shape == (50, 100, 3)
