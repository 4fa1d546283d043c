"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nni_hyperfd.benchmark.load import cluster as postgresql
from support.finished import Finished, finish
from support.lab import Lab

# Read when torch is imported. On a machine whose cores are busy, small networks learn many times slower on two threads
# than on one; on an idle one they learn no faster.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Made-up data sets have few images and extractors that nobody has trained, which the default settings do not describe.
# Tests of the settings themselves set their own.
os.environ["HYPERFD_PRIVACY"] = "off,learn=allow,among=1,share=allow"


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


@pytest.fixture(scope="session")
def finished(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """An experiment on a few real images that has ended, with two trials."""
    return finish(
        tmp_path_factory.mktemp("finished"), real_data / "toon_dexter", {"train": 16, "val": 8, "test": 6}, budget=2
    )


@pytest.fixture(scope="session")
def cluster() -> Iterator[postgresql.Cluster]:
    """A PostgreSQL server."""
    if reason := postgresql.missing():
        pytest.skip(reason)
    with postgresql.cluster() as running:
        yield running


SLOW = (
    "benchmark",
    "datasets/convert",
    "datasets/subsets",
    "detector",
    "examples",
    "platform/test_parity.py",
    "platform/test_warm_start.py",
    "recommenders/test_conformance.py",
    "recommenders/test_paper.py",
    "report",
    "trial_code",
    "warmup",
)
"""Folders and modules whose tests take long to compute; `make test-fast` leaves them out."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes long."""
    folder = Path(__file__).parent
    slow = [folder / name for name in SLOW]
    for item in items:
        if any(item.path.is_relative_to(path) for path in slow):
            item.add_marker(pytest.mark.slow)
