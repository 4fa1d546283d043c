"""NNI gives a tuner ten seconds from its start to its connection: nothing heavy may be imported in them."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.nni


@pytest.mark.parametrize("name", ["HyperFDAdvisor", "HyperFDTuner", "get_next_parameter"])
def test_importing_brings_no_torch(name: str) -> None:
    code = (
        f"import sys; from nni_hyperfd import {name}; "
        "heavy = {'torch', 'mmdet', 'mmengine', 'mmcv'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
