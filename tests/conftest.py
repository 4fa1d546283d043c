"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A folder of real face data sets, ``<domain>/{train,val,test}.json`` beside ``<domain>/images/``."""
    folder = os.environ.get("HYPERFD_TEST_DATA")
    if not folder:
        pytest.skip("HYPERFD_TEST_DATA is unset: set it to a folder of real face data sets")
    if not Path(folder).is_dir():
        pytest.skip(f"HYPERFD_TEST_DATA names {folder}, which is no folder")
    return Path(folder)
