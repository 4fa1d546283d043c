"""All exhibits on one HTML page that needs no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment

from nni_hyperfd.benchmark.reproduce.exhibits import Exhibit
from nni_hyperfd.files import write_text


def write(
    exhibits: Sequence[Exhibit], command: str, sizes: Sequence[str], gaps: Sequence[str], seeds: int, path: Path
) -> None:
    """Write the page.

    Args:
        exhibits: in their order.
        command: the command line that made them.
        sizes: sentences on the sizes of the tables.
        gaps: sentences on what is missing in the tables.
        seeds: number of seeds.
        path: of the HTML file.
    """
    template = files(__package__).joinpath("page.html").read_text()
    page = Environment(autoescape=True).from_string(template)
    values = {"exhibits": exhibits, "command": command, "sizes": sizes, "gaps": gaps, "seeds": seeds}
    write_text(path, page.render(encoded=_encoded, **values))


def _encoded(picture: Path) -> str:
    """A file as base64."""
    return base64.b64encode(picture.read_bytes()).decode()
