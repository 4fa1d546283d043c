"""The folder as a part to copy: no import circles, public names of nni_hyperfd only, run from anywhere."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

from .conftest import TRIAL_CODE
from .test_scripts import command_line

SOURCES = {
    ".".join(path.relative_to(TRIAL_CODE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (*TRIAL_CODE.glob("*.py"), *TRIAL_CODE.glob("retinaface/*.py"))
}
PUBLIC = (
    "nni_hyperfd",
    "nni_hyperfd.benchmark.measured",
    "nni_hyperfd.benchmark.tables",
    "nni_hyperfd.datasets",
    "nni_hyperfd.datasets.coco",
    "nni_hyperfd.detector.onnx_detector",
    "nni_hyperfd.files",
    "nni_hyperfd.method",
    "nni_hyperfd.privacy.traces",
    "nni_hyperfd.space",
    "nni_hyperfd.weights",
)


def imports(path: Path) -> Iterator[tuple[str, str | None]]:
    """(module, name or None) of all imports of a file, those inside of functions and for type checkers included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None, f"{path}: a relative import"
            yield from ((node.module, alias.name) for alias in node.names)


def test_no_module_imports_itself_through_others() -> None:
    """A package is imported before its modules, so what its `__init__` imports may not import the package's names."""
    graph: dict[str, set[str]] = {}
    for module, path in SOURCES.items():
        graph[module] = set()
        for imported, name in imports(path):
            submodule = f"{imported}.{name}"
            graph[module].add(submodule if submodule in SOURCES else imported)
        graph[module] &= SOURCES.keys()
    assert graph["retinaface.detector"] >= {"retinaface.convert"} and graph["finetune"] >= {"retinaface.training"}
    assert list(TopologicalSorter(graph).static_order()), "a CycleError names the circle"


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_only_public_names_are_used(module: str) -> None:
    for imported, name in imports(SOURCES[module]):
        if imported.split(".")[0] == "nni_hyperfd":
            assert imported in PUBLIC, f"{module} imports from {imported}"
            assert name is None or not name.startswith("_"), f"{module} imports {imported}.{name}"
            if name is not None and f"{imported}.{name}" not in PUBLIC:
                home = import_module(imported)
                assert name in getattr(home, "__all__", dir(home)), f"{imported} has no public {name}"


def test_a_copy_runs_from_anywhere(options, tmp_path: Path) -> None:
    """A trial in a copy of the folder without the repository around it, started in another folder."""
    copy = Path(shutil.copytree(TRIAL_CODE, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__")))
    (tmp_path / "elsewhere").mkdir()
    arguments = command_line(options)
    place = arguments.index("--config")
    arguments[place + 1] = str(copy / "configs" / options.config.name)
    environment = {**os.environ, "PYTHONPATH": str(TRIAL_CODE.parent)}
    command = [sys.executable, str(copy / "finetune.py"), *arguments]
    run = subprocess.run(command, cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "elsewhere" / "work" / "detector.safetensors").is_file()


def test_a_package_of_the_same_name_does_no_harm(tmp_path: Path) -> None:
    """Several packages of the registry are imported as `retinaface`; the folder of the script comes first."""
    (tmp_path / "retinaface").mkdir()
    (tmp_path / "retinaface" / "__init__.py").write_text("raise RuntimeError('the other package')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(TRIAL_CODE.parent)])}
    command = [sys.executable, str(TRIAL_CODE / "finetune.py"), "--help"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    "script", sorted(path.name for path in TRIAL_CODE.glob("*.py") if path.name != "mmdet_tool.py")
)
def test_every_script_explains_itself(script: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(TRIAL_CODE.parent)}
    command = [sys.executable, str(TRIAL_CODE / script), "--help"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0 and ("--weights" in run.stdout or "--trial" in run.stdout), run.stderr
