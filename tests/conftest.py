"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.lab import Lab

# Read when torch is imported. On a machine whose cores are busy, small networks learn many times slower on two threads
# than on one; on an idle one they learn no faster.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A folder of real face data sets, ``<domain>/{train,val,test}.json`` beside ``<domain>/images/``."""
    folder = os.environ.get("HYPERFD_TEST_DATA")
    if not folder:
        pytest.skip("HYPERFD_TEST_DATA is unset: set it to a folder of real face data sets")
    if not Path(folder).is_dir():
        pytest.skip(f"HYPERFD_TEST_DATA names {folder}, which is no folder")
    return Path(folder)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def make_lab() -> type[Lab]:
    return Lab
