"""Alembic migrations of the state: one revision per format, with the format as its number.

A format is what a released version wrote. Tables change by adding a revision, raising `FORMAT`, and adding a state of
the last format to tests/state/formats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection

if TYPE_CHECKING:
    from alembic.config import Config

FORMAT = 5
"""The format that this version reads and writes; the file's `user_version` in SQLite."""


def stamp(connection: Connection, version: int) -> None:
    """Note that the tables have this format."""
    from alembic import command

    command.stamp(_config(connection), _revision(version))


def upgrade(connection: Connection, version: int) -> None:
    """Bring tables of an earlier format to `FORMAT`, within the transaction of the connection."""
    from alembic import command

    config = _config(connection)
    command.stamp(config, _revision(version))
    command.upgrade(config, _revision(FORMAT))


def _revision(version: int) -> str:
    return f"{version:04d}"


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", f"{__name__}:")
    return config
