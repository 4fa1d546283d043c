from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

import nni_hyperfd


def fresh(code):
    """Run in a process of its own; what it printed."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    "statement",
    [
        "import nni_hyperfd",
        "from nni_hyperfd import HyperFDAdvisor",
        "from nni_hyperfd import HyperFDTuner, Platform, get_next_parameter, Dataset",
        "import nni_hyperfd.cli",
    ],
)
def test_importing_does_not_load_torch(statement):
    assert fresh(f"import sys; {statement}; print('torch' in sys.modules)") == ["False"]


def test_the_bare_import_loads_nothing_of_nni_or_sql_and_no_room_of_its_own():
    heavy = ("nni", "sqlalchemy", "nni_hyperfd.platform.platform")
    assert fresh(f"import sys, nni_hyperfd; print(*[m for m in {heavy} if m in sys.modules])") == []


def test_opening_a_task_does_not_load_torch_either(tmp_path):
    # NNI waits ten seconds for the first answer of a tuner; torch alone may take them on a slow disk.
    code = f"""
        import sys
        from nni_hyperfd import HyperFDTuner
        tuner = HyperFDTuner(state={str(tmp_path / "state.sqlite")!r})
        tuner.update_search_space({{"x": {{"_type": "choice", "_value": [1, 2]}}}})
        print("torch" in sys.modules)
    """
    assert fresh(code) == ["False"]


def test_every_public_name_exists_and_is_listed():
    assert sorted(nni_hyperfd.__all__) == nni_hyperfd.__all__
    for name in nni_hyperfd.__all__:
        assert getattr(nni_hyperfd, name).__name__ == name
        assert getattr(nni_hyperfd, name).__doc__
    assert set(nni_hyperfd.__all__) <= set(dir(nni_hyperfd))
    with pytest.raises(AttributeError, match="'nni_hyperfd' has no attribute 'nonsense'"):
        nni_hyperfd.nonsense  # noqa: B018


def test_the_version_is_the_installed_one():
    from importlib.metadata import version

    assert nni_hyperfd.__version__ == version("nni-hyperfd")
