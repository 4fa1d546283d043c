from __future__ import annotations

import subprocess
import sys

import pytest

import nni_hyperfd.method


def test_importing_the_package_does_not_import_torch():
    code = (
        "import sys, nni_hyperfd.method as r; r.RankerSettings(); assert 'torch' not in sys.modules; "
        "r.gwap; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_exists_and_is_listed():
    for name in nni_hyperfd.method.__all__:
        assert getattr(nni_hyperfd.method, name).__name__ == name
        assert name in dir(nni_hyperfd.method)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        nni_hyperfd.method.nonsense  # noqa: B018
