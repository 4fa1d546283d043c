"""`make docs`: the site is built, without a dead link or a docstring that cannot be shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return out


def test_every_page_is_in_the_site(site: Path) -> None:
    pages = sorted(page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md"))
    assert pages
    home = (site / "index.html").read_text()
    for page in pages:
        address = page.with_suffix(".html").as_posix()
        assert (site / address).is_file() and address in home, f"{page} is not in the navigation of mkdocs.yml"


def test_the_reference_shows_what_docstrings_say(site: Path) -> None:
    reference = (site / "reference" / "nni_hyperfd.html").read_text()
    for words in ("HyperFDAdvisor", "get_next_parameter", "when_away", "while the server is away"):
        assert words in reference
