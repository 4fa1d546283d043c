"""docs/privacy.md names code and settings that exist, and states figures that follow from formulas."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
from scipy.stats import norm

from nni_hyperfd.privacy import projection
from nni_hyperfd.privacy.mechanism import noise_multiplier
from nni_hyperfd.privacy.settings import PrivacySettings

PAGE = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text()


def test_every_name_on_the_page_exists():
    names = re.findall(r"`(mechanism|projection|accounting|ledger|release)\.([\w.]+)`", PAGE)
    assert len(names) > 8
    for module, name in names:
        found = import_module(f"nni_hyperfd.privacy.{module}")
        for part in name.split("."):
            found = getattr(found, part)


def test_every_setting_is_on_the_page_with_its_default():
    cells = dict(re.findall(r"^\| (`\w+`(?:, `\w+`)?) \| ([^|]+) \|", PAGE, re.MULTILINE))
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert named == {field.name for field in fields(PrivacySettings)} - {"off"}
    defaults = PrivacySettings()
    assert cells["`epsilon`, `delta`"] == f"{defaults.epsilon:g}, {defaults.delta:.0e}".replace("e-0", "e-")
    for name in ("total", "minimum", "among"):
        assert cells[f"`{name}`"] == f"{getattr(defaults, name):g}"
    assert cells["`ap`"] == f"`{defaults.ap.value}`"
    assert cells["`unit`"] == f"`{defaults.unit.value}`" and cells["`learn`"] == cells["`share`"] == "`deny`"


def test_figures_that_follow_from_formulas():
    assert f"{noise_multiplier(3, 1e-5):.3f} for (3, 1e-5)" in PAGE
    noise = ", ".join(f"{noise_multiplier(3, 1e-5) / images:.3f}"[1:] for images in (50, 100, 300))
    assert f"standard deviation of {noise} and .001 with 50, 100, 300 and 1000" in re.sub(r"\s+", " ", PAGE)
    descriptions = [(noise_multiplier(epsilon, 1e-5), times) for epsilon, times in ((8, 1), (3, 5), (1, 10))]
    bounds = [
        f"({norm.cdf((times / 2) ** 0.5 / multiplier):.2f})".replace("0.", ".") for multiplier, times in descriptions
    ]
    assert re.search(" .*".join(map(re.escape, bounds)), PAGE)
    for path in projection.SHIPPED.glob(f"*{projection.SUFFIX}"):
        assert len(projection.load(path).directions) == projection.DIRECTIONS == 8 and "has the 8 directions" in PAGE


@pytest.mark.parametrize("equation", ["P1", "P2", "P3", "P4", "P5"])
def test_the_equations_that_code_cites_are_on_the_page(equation):
    assert f"**{equation}." in PAGE
