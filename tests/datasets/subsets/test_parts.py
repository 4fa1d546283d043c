from __future__ import annotations

import numpy as np
import pytest

from nni_hyperfd.datasets.subsets.parts import array


def test_rows_are_written_once(tmp_path):
    rows = np.random.default_rng(0).normal(size=(1234, 5)).astype(np.float32)
    for make in (lambda: iter(rows), lambda: pytest.fail("made again")):
        found = array(tmp_path / "a.npy", make)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, rows)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_an_array_that_was_not_finished_is_made_anew(tmp_path):
    def broken():
        yield np.ones(3)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        array(tmp_path / "a.npy", broken)
    assert not (tmp_path / "a.npy").exists()
    assert array(tmp_path / "a.npy", lambda: [np.zeros(2)]).tolist() == [[0, 0]]
