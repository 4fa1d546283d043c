"""Which module may import which: no circles, and arrows between the rooms of nni_hyperfd that point one way.

Read from the source text, so that imports inside functions count as well. Those under `if TYPE_CHECKING:` do not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter

import pytest

from support import ROOT

PACKAGE = "nni_hyperfd"
ROOMS = {
    "": {"experiment", "platform"},  # the public names
    "experiment": {"client", "platform", "space", "task", "wire"},
    "experiment.trial": {"method", "privacy", "wire"},  # it runs in trials, where there is no platform
    "platform": {"belief", "method", "privacy", "recommenders", "space", "state", "task", "wire"},
    "client": {"method", "platform", "space", "task", "wire"},
    "server": {"", "method", "platform", "report", "space", "state", "task", "wire"},
    "state": {"files", "method", "space", "task", "wire"},
    "recommenders": {"belief", "method", "space"},
    "method": {"space"},
    "belief": set(),
    "privacy": {"files", "method"},
    "space": set(),
    "wire": {"method", "task"},
    "task": set(),
    "files": set(),
    "datasets": {"files"},
    "tuning": {
        "client",
        "datasets",
        "detector",
        "experiment",
        "files",
        "method",
        "platform",
        "privacy",
        "report",
        "space",
        "wire",
    },  # fmt: skip
    "detector": {"datasets", "files", "privacy"},
    "report": {"datasets", "detector", "files", "platform", "privacy", "recommenders", "space", "state", "task"},
    "warmup": {"experiment", "files", "method", "platform", "privacy", "space", "state", "task", "wire"},
    "weights": {"method"},  # public names for trials of one's own
}
"""Room (a subpackage, a module of the package, or a module with rules of its own) -> the rooms that it may import."""
ROOMS["benchmark"] = {*ROOMS} - {"experiment"}
ROOMS["cli"] = {*ROOMS}

PURE_ROOMS, FOREIGN = ("method", "belief", "privacy"), {"nni", "sqlalchemy", "alembic", "mmdet", "mmengine", "mmcv"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: set(targets) for module, targets in _imports().items()}
    circles = []
    while True:
        try:
            TopologicalSorter(graph).prepare()
            break
        except CycleError as error:
            circle = error.args[1][::-1]  # each imports the next one
            circles.append(" -> ".join(circle))
            graph[circle[0]].discard(circle[1])
    assert not circles, "\n" + "\n".join(circles)


def test_every_room_is_in_the_table() -> None:
    assert {_room(module) for module in _modules()} <= set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_that_it_may(room: str) -> None:
    own = room.split(".")[0]
    wrong = {
        f"{module} imports {target}"
        for module in _modules()
        for target in _imports()[module]
        if _room(module) == room and _room(target).split(".")[0] not in ROOMS[room] | {own}
    }
    assert not wrong, "\n" + "\n".join(sorted(wrong))


def test_the_package_does_not_import_what_uses_it() -> None:
    users = {"trial_code", "retinaface", "examples", "support", "tests"}
    assert not _importers_of(users, rooms=tuple(ROOMS))


def test_the_mathematics_knows_neither_nni_nor_sql_nor_mmdetection() -> None:
    assert not _importers_of(FOREIGN, rooms=PURE_ROOMS)


def _importers_of(names: set[str], rooms: tuple[str, ...]) -> list[str]:
    return sorted(
        f"{module} imports {name}"
        for module in _modules()
        for name, _ in _imported(module)
        if _room(module).split(".")[0] in rooms and name.split(".")[0] in names
    )


def _room(module: str) -> str:
    inside = module.removeprefix(PACKAGE).removeprefix(".")
    return inside if inside in ROOMS else inside.split(".")[0]


@cache
def _sources() -> dict[str, ast.Module]:
    """Name of each module of the package and of the trials' code -> its syntax tree."""
    found = {}
    for base, folder in ((ROOT, ROOT / PACKAGE), (ROOT / "trial_code", ROOT / "trial_code")):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(), path)
    return found


@cache
def _modules() -> list[str]:
    """Names of the modules of the package."""
    return [name for name in _sources() if name.split(".")[0] == PACKAGE]


@cache
def _imports() -> dict[str, set[str]]:
    """Name of each module -> the modules of these that it imports, at its top or in functions."""
    graph: dict[str, set[str]] = {}
    for module in _sources():
        targets = {_resolve(base, name) for base, name in _imported(module)} | set(_lazy_names(module).values())
        graph[module] = targets - {module, None}
    return graph


def _resolve(base: str, name: str | None) -> str | None:
    """The module that `from base import name` or `import base` loads; None for one of other packages."""
    if name is not None and f"{base}.{name}" in _sources():
        return f"{base}.{name}"
    if name is not None and name in _lazy_names(base):
        return _lazy_names(base)[name]
    return base if base in _sources() else None


def _imported(module: str) -> Iterator[tuple[str, str | None]]:
    """What a module imports: (module, None) for `import module`, (module, name) for `from module import name`."""
    for node in _executed(_sources()[module]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                is_package = any(other.startswith(f"{module}.") for other in _sources())
                parents = module.split(".")[: None if is_package else -1]
                base = ".".join([*parents[: len(parents) + 1 - node.level], *filter(None, [node.module])])
            yield from ((base, alias.name) for alias in node.names)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below this one, except those under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from (other, *_executed(other))
        else:
            yield child
            yield from _executed(child)


@cache
def _lazy_names(package: str) -> dict[str, str]:
    """Names that a package loads on first use -> their modules, from its table of names and modules below it."""
    names = {}
    for node in _sources()[package].body if package in _sources() else []:
        value = getattr(node, "value", None)
        if isinstance(value, ast.Dict):
            for key, home in zip(value.keys, value.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(home, ast.Constant) and isinstance(home.value, str):
                    module = f"{package}.{home.value.split(':')[0]}"
                    if module in _sources():
                        names[key.value] = module
    return names
