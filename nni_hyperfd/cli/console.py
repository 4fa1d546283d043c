"""What the commands share: where they print, how they end, which state they use."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from nni_hyperfd.platform import Platform
from nni_hyperfd.state.store import default_state

console = Console()
_LINE_SECONDS = 60.0  # between two lines where the output is no terminal

State = Annotated[
    Path, typer.Option(help="The state file.", default_factory=default_state, show_default="in the user's data folder")
]


def open_state(state: Path) -> Platform:
    """The platform of a state that exists; ends the command where there is none, for there is nothing to move."""
    if not state.exists():
        stop(f"state {state}: there is none yet; run an experiment or name another file with --state")
    return Platform(state)


def say(text: str) -> None:
    """Print a line as it is, however long."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)


@contextmanager
def changing_line(first: str) -> Iterator[Callable[[str], None]]:
    """Show a line that changes: in place on a terminal, once a minute elsewhere.

    Args:
        first: what is shown before the first line, on a terminal.

    Yields:
        A function that is given each new line.
    """
    if console.is_terminal:
        with console.status(first) as status:
            yield status.update
        return
    printed = -_LINE_SECONDS

    def show(line: str) -> None:
        nonlocal printed
        if time.monotonic() - printed >= _LINE_SECONDS:
            printed = time.monotonic()
            say(line)

    yield show


def read_json(file: Path) -> object:
    """The content of a JSON file; ends the command where it cannot be read."""
    try:
        return json.loads(file.read_text())
    except OSError as error:
        stop(f"{file}: {error.strerror}")
    except ValueError as error:
        stop(f"{file}: this is no JSON ({error})")


@contextmanager
def readable_errors(path: Path, extra: str) -> Iterator[None]:
    """Within the block, a disk's error and a package that is missing end the command with one sentence.

    Args:
        path: what is written, named where the system does not say which file it could not use.
        extra: the extra of nni-hyperfd that brings the packages.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        stop(f"{error.name} is not installed; `pip install 'nni-hyperfd[{extra}]'` brings what this command needs")
    except OSError as error:
        stop(f"{error.filename or path}: {error.strerror}; make room or correct it, and run the command again")


def stop(message: str) -> NoReturn:
    """End the command with status 1 and a message, in which bytes of names that are no text are written out."""
    text = message.encode("utf-8", errors="backslashreplace").decode()
    Console(stderr=True).print(f"hyperfd: {text}", soft_wrap=True, highlight=False, markup=False)
    raise SystemExit(1)
