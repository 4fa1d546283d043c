"""HTML pages that need no other file: panels in a template, figures as inlined SVG whose colours follow the page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from typing import TYPE_CHECKING

from nni_hyperfd import files

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

INK, LINE, BEFORE, AFTER, MARK = "#010101", "#020202", "#030303", "#040404", "#050505"
"""Colours to draw with. On the page they are the variables of `_VARIABLES`, which differ in light and dark."""

_VARIABLES = {INK: "ink", LINE: "line", BEFORE: "before", AFTER: "after", MARK: "mark"}
_INCHES = (4.6, 3.1)  # drawn small, so that texts can be read on a page of 400 pixels
_NARROW = 460  # pixels
_LONG = 22  # characters of a cell that may take several lines
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.facecolor": "none",
    "legend.framealpha": 0,
    "legend.edgecolor": LINE,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


class MissingError(Exception):
    """The data of a panel are not there; the message is the sentence in its place."""


@dataclass(frozen=True)
class Panel:
    """A part of a page.

    Attributes:
        title: its heading.
        about: sentences on how to read it.
        content: HTML, or None where its data are missing.
        missing: why there is no content.
    """

    title: str
    about: str
    content: Markup | None
    missing: str = ""


@dataclass(frozen=True)
class Table:
    """A table of a panel.

    Attributes:
        columns: its heads.
        rows: its cells.
        caption: above it.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


def panel(title: str, about: str, make: Callable[[], Markup]) -> Panel:
    """Make a panel, which says so where its data are missing."""
    try:
        return Panel(title, about, make())
    except MissingError as error:
        return Panel(title, about, None, str(error))


def html(*parts: Markup | Table | str) -> Markup:
    """Join figures, tables and paragraphs."""
    from markupsafe import Markup

    return Markup("\n").join(_part(part) for part in parts)


def figures(*parts: Markup) -> Markup:
    """Figures side by side, or below each other on a narrow page."""
    from markupsafe import Markup

    return Markup('<div class="figures">{}</div>').format(Markup("\n").join(parts))


def draw(title: str, make: Callable[[Figure], None], inches: tuple[float, float] = _INCHES) -> Markup:
    """A figure as inlined SVG.

    Args:
        title: for those who do not see it, and the caption.
        make: draws into an empty figure, with the colours of this module.
        inches: width and height.
    """
    import matplotlib
    from markupsafe import Markup
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=inches, layout="constrained")
        make(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, name in _VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", text)
    text = re.sub(r'<svg[^>]*viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" role="img">', text, count=1)
    pixels = round(inches[0] * 96)
    frame = '<figure style="max-width:{}px;min-width:{}px"><figcaption>{}</figcaption>{}</figure>'
    smallest = 0 if pixels <= _NARROW else round(0.8 * pixels)  # below it, texts of a wide figure cannot be read
    return Markup(frame).format(pixels, smallest, title, Markup(text))


def write(path: Path, title: str, lead: Sequence[str], panels: Sequence[Panel]) -> Path:
    """Write a page completely or not at all.

    Args:
        path: the HTML file.
        title: its heading.
        lead: sentences below it.
        panels: in their order.
    """
    from jinja2 import Environment

    template = resources(__package__).joinpath("page.html").read_text()
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    files.write_text(path, environment.from_string(template).render(title=title, lead=lead, panels=panels))
    return path


def require() -> None:
    """Check that the packages that draw are there.

    Raises:
        FolderError: one is missing.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise files.FolderError(
            f"{error.name} is not installed; `pip install 'nni-hyperfd[detector]'` brings what a report needs"
        ) from None


def _part(part: Markup | Table | str) -> Markup:
    from markupsafe import Markup

    if isinstance(part, Table):
        return _table(part)
    return part if isinstance(part, Markup) else Markup("<p>{}</p>").format(part)


def _table(table: Table) -> Markup:
    from markupsafe import Markup

    def row(cells: Sequence[str], kind: str) -> Markup:
        return Markup("<tr>{}</tr>").format(Markup("").join(_cell(cell, kind) for cell in cells))

    rows = Markup("\n").join([row(table.columns, "th"), *(row(cells, "td") for cells in table.rows)])
    caption = Markup("<caption>{}</caption>").format(table.caption) if table.caption else Markup("")
    return Markup('<div class="wide"><table>{}{}</table></div>').format(caption, rows)


def _cell(text: str, kind: str) -> Markup:
    from markupsafe import Markup

    # Names of parameters may break at their underscores.
    shown = Markup("_<wbr>").join(text.split("_")) if kind == "th" else Markup("{}").format(text)
    return Markup(f"<{kind}{' class=prose' if len(text) > _LONG else ''}>{{}}</{kind}>").format(shown)
