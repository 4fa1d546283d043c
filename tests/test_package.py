from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import textwrap
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import nni_hyperfd
from nni_hyperfd.detector import search_spaces, trial_code
from support import ROOT


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
        "from nni_hyperfd.experiment import launch",
    ],
)
def test_importing_loads_neither_torch_nor_mmdetection(statement):
    # NNI waits ten seconds for a tuner's connection.
    heavy = ("torch", "torch_geometric", "mmdet", "mmengine", "mmcv")
    assert fresh(f"import sys; {statement}; print(*[m for m in {heavy} if m in sys.modules])") == []


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


def test_the_version_has_one_place():
    assert nni_hyperfd.__version__ == version("nni-hyperfd")
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["metadata"]["version"] == "attr: nni_hyperfd.__version__"
    assert f"[{nni_hyperfd.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The package's wheel."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("nni_hyperfd", "trial_code", "search_spaces"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools import build_meta; import sys; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, out], cwd=source, check=True, capture_output=True)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def shipped(wheel) -> set[str]:
    """The files of the package in its wheel."""
    return {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("nni_hyperfd/")}


def test_the_wheel_has_every_module(shipped):
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "nni_hyperfd").rglob("*.py")}
    assert modules <= shipped


def test_the_wheel_has_what_is_read_at_run_time(shipped):
    others = {
        "nni_hyperfd/py.typed",
        "nni_hyperfd/experiment/patient_manager.js",
        "nni_hyperfd/warmup/shipped/state.sqlite",
        "nni_hyperfd/benchmark/faces_hpo/meta.json",
        "nni_hyperfd/benchmark/faces_nas/meta.json",
        "nni_hyperfd/benchmark/reproduce/page.html",
        "nni_hyperfd/report/page.html",
        "nni_hyperfd/server/page.html",
        "nni_hyperfd/search_spaces/hpo.json",
    }
    assert others <= shipped


def test_the_wheel_has_the_trials_code_and_finds_it(wheel, shipped, tmp_path):
    code = {path.relative_to(ROOT).as_posix() for path in (ROOT / "trial_code").rglob("*.py")}
    names = ("retinaface_wider", "retinaface_proxylessnas", "retinaface_mobilenetv2")
    weights = {f"trial_code/weights/{name}.safetensors" for name in names}
    assert {f"nni_hyperfd/{name}" for name in code | weights} <= shipped
    zipfile.ZipFile(wheel).extractall(tmp_path)
    found = fresh(f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from nni_hyperfd.detector import search_spaces, trial_code
        print(trial_code(), search_spaces())
    """)
    assert found == [str(tmp_path / "nni_hyperfd" / name) for name in ("trial_code", "search_spaces")]


def test_a_checkout_finds_the_trials_code_beside_the_package():
    assert trial_code() == ROOT / "trial_code" and search_spaces() == ROOT / "search_spaces"
