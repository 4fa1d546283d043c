from __future__ import annotations

import pytest

from nni_hyperfd.datasets import coco, synthetic
from nni_hyperfd.datasets.validation import FewFacesWarning, caution, standard_error


def test_the_standard_error_is_that_of_a_share():
    assert standard_error(16, 0.5) == pytest.approx(0.125)
    assert standard_error(400) == pytest.approx(0.02)


def test_few_faces_are_warned_of_in_words(tmp_path):
    assert caution(30) is None
    folder = synthetic.make(tmp_path / "faces", "plain", images=(1, 3, 0), size=96)
    with pytest.warns(FewFacesWarning, match=r"val.json: there are only \d+ faces to validate on, .* ± 0\.\d\d "):
        coco.load(folder, "val")
