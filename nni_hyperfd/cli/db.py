"""The commands for the database of a platform: upgrade, check, copy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nni_hyperfd.cli.console import readable_errors, say, stop

if TYPE_CHECKING:
    from nni_hyperfd.state.operating import Checked

db = typer.Typer(no_args_is_help=True, help="Upgrade, check and copy a state, in a file or in PostgreSQL.")

Database = Annotated[str, typer.Option(help="postgresql+psycopg://USER@HOST/DATABASE, or a state file.")]


@db.command()
def upgrade(database: Database) -> None:
    """Bring a state of an earlier version to the format of this one. Stop its servers and make a backup before."""
    with readable_errors(Path(database), "server"):
        from nni_hyperfd.state import operating

        _show(operating.upgrade(database))


@db.command()
def check(database: Database) -> None:
    """Say what the state holds, and whether all of it is sound: status 1 if not. Changes nothing."""
    with readable_errors(Path(database), "server"):
        from nni_hyperfd.state import operating

        _show(operating.check(database))


@db.command()
def copy(
    source: Annotated[str, typer.Argument(help="A state, in a file or in PostgreSQL.")],
    target: Annotated[str, typer.Argument(help="An empty one, or a file that is not there.")],
) -> None:
    """Copy a whole state: into PostgreSQL, out of it, or as a backup. Others may go on using the source."""
    with readable_errors(Path(target), "server"):
        from nni_hyperfd.state import operating

        copied = operating.copy(source, target)
    say("Copied, and counted again: " + ", ".join(f"{count} {name}" for name, count in copied.items()))


def _show(checked: Checked) -> None:
    say(f"Format {checked.format}")
    for name, count in checked.rows.items():
        say(f"{count:8} {name}")
    for fault in checked.faults:
        say(fault)
    if checked.faults:
        stop(f"{len(checked.faults)} faults were found; restore a backup")
    say("All rows refer to what is there, and all weights are what they are named by.")
