"""NNI gives a tuner ten seconds from its start to its connection; our share of them has to be small."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.nni

REPEATS = 3


def seconds(code: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    return time.perf_counter() - begin


def test_what_importing_the_advisor_costs() -> None:
    alone, ours = "import nni", "import nni; from nni_hyperfd import HyperFDAdvisor"
    pairs = [(seconds(alone), seconds(ours)) for _ in range(REPEATS)]  # in turn, so that load hits both alike
    for code, times in zip((alone, ours), zip(*pairs, strict=True), strict=True):
        print(f"{code}: median {statistics.median(times):.2f} s of {[round(t, 2) for t in times]}")


@pytest.mark.parametrize("name", ["HyperFDAdvisor", "HyperFDTuner", "get_next_parameter"])
def test_importing_brings_no_torch(name: str) -> None:
    code = (
        f"import sys; from nni_hyperfd import {name}; "
        "heavy = {'torch', 'mmdet', 'mmengine', 'mmcv'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
