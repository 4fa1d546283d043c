"""docs/method.md names code, code cites its equations, and both list the same settings."""

from __future__ import annotations

import dataclasses
import re
from importlib import import_module
from pathlib import Path

import nni_hyperfd
from nni_hyperfd.method import RankerSettings

PACKAGE = Path(nni_hyperfd.__file__).parent
PAGE = (Path(__file__).parents[2] / "docs" / "method.md").read_text()


def test_every_name_on_the_page_exists():
    names = re.findall(r"`((?:method|belief|space|recommenders)\.[\w.]+)", PAGE)
    assert len(names) > 20
    for name in names:
        assert _exists(name), f"docs/method.md names {name}, which does not exist"


def _exists(name: str) -> bool:
    """Whether a dotted name below nni_hyperfd is a module, or an attribute of the longest module in it."""
    parts = name.split(".")
    length = max(n for n in range(len(parts) + 1) if _is_module(parts[:n]))
    found = import_module(".".join(["nni_hyperfd", *parts[:length]]))
    for part in parts[length:]:
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def _is_module(parts: list[str]) -> bool:
    path = PACKAGE.joinpath(*parts)
    return path.is_dir() or path.with_suffix(".py").exists()


def test_every_equation_that_code_cites_is_on_the_page():
    listed = set(re.findall(r"^### Eq\. (\d+)|^\*\*(B\d+)\.", PAGE, re.MULTILINE))
    listed = {one or other for one, other in listed}
    assert listed == {str(n) for n in range(1, 12)} | {f"B{n}" for n in range(1, 18)}
    cited = set()
    for file in PACKAGE.rglob("*.py"):
        cited |= set(re.findall(r"\beq(?:uation|\.) (B?\d+)\b", file.read_text(), re.IGNORECASE))
    assert {"1", "4", "6", "B16"} <= cited <= listed


def test_the_settings_are_those_of_the_code():
    rows = dict(re.findall(r"^\| `(\w+)` \| `?([^|`]+)`? \|", PAGE, re.MULTILINE))
    fields = {field.name: field.default for field in dataclasses.fields(RankerSettings)}
    assert {name: value.strip() for name, value in rows.items() if name in fields} == {
        name: value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in fields.items()
    }
