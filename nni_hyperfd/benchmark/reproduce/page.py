"""All exhibits on one page that needs no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment

from nni_hyperfd.benchmark.reproduce.exhibits import Exhibit


def write(
    exhibits: Sequence[Exhibit], command: str, sizes: Sequence[str], gaps: Sequence[str], seeds: int, path: Path
) -> None:
    """command: what made the exhibits; sizes, gaps: sentences on the tables behind them."""
    template = files(__package__).joinpath("page.html").read_text()
    page = Environment(autoescape=True).from_string(template)
    values = {"exhibits": exhibits, "command": command, "sizes": sizes, "gaps": gaps, "seeds": seeds}
    path.write_text(page.render(encoded=_encoded, **values), encoding="utf-8")


def _encoded(picture: Path) -> str:
    return base64.b64encode(picture.read_bytes()).decode()
