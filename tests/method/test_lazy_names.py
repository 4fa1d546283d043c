from __future__ import annotations

import subprocess
import sys

import pytest

import nni_hyperfd.method


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_does_not_import_torch():
    run(
        "import sys, nni_hyperfd.method as r; r.RankerSettings(); assert 'torch' not in sys.modules; "
        "r.gwap; assert 'torch' in sys.modules"
    )


def test_drawing_tasks_does_not_import_torch():
    run(
        "import sys, numpy; from nni_hyperfd.method.drawing import tasks_to_learn_from as draw; "
        "draw([1, 2], [3], numpy.random.default_rng(0)); assert 'torch' not in sys.modules"
    )


@pytest.mark.slow
def test_only_architectures_import_torch_geometric():
    run(
        "import sys; sys.path.insert(0, 'tests')\n"
        "from nni_hyperfd.method import ConfigurationEncoder, learning, recipe\n"
        "from support.encoded import configurations\n"
        "ConfigurationEncoder.initial(configurations('hpo', 1), 0)(configurations('hpo', 2))\n"
        "assert 'torch_geometric' not in sys.modules\n"
        "ConfigurationEncoder.initial(configurations('nas', 1), 0)\n"
        "assert 'torch_geometric' in sys.modules"
    )


def test_every_public_name_exists_and_is_listed():
    for name in nni_hyperfd.method.__all__:
        assert getattr(nni_hyperfd.method, name).__name__ == name
        assert name in dir(nni_hyperfd.method)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        nni_hyperfd.method.nonsense  # noqa: B018


def test_neither_nni_nor_the_database_nor_the_detector_is_imported_by_the_mathematics():
    code = (
        "import importlib, pkgutil, sys, nni_hyperfd.belief as b, nni_hyperfd.method as m\n"
        "for package in (b, m):\n"
        "    for module in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "strange = {'nni', 'sqlalchemy', 'mmdet', 'mmengine', 'typer'} & sys.modules.keys()\n"
        "ours = {name for name in sys.modules if name.startswith('nni_hyperfd.')}\n"
        "rooms = {name.split('.')[1] for name in ours}\n"
        "assert not strange and rooms == {'belief', 'method', 'space'}, (strange, rooms)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
