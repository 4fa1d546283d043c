"""The command that learns beside the servers of a platform."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nni_hyperfd.cli.console import readable_errors, stop


def worker(
    database: Annotated[str, typer.Option(help="postgresql+psycopg://USER@HOST/DATABASE, that of the servers.")],
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between looks for what no queue has told.")] = 60.0,
    heartbeat: Annotated[float, typer.Option(min=0.1, help="Seconds between signs of life.")] = 10.0,
    stalled: Annotated[
        float, typer.Option(min=0.2, help="Seconds without one after which others take over; above --heartbeat.")
    ] = 40.0,
    abandoned_days: Annotated[float, typer.Option(min=0.01, help="Days without news that close a task.")] = 14.0,
) -> None:
    """Learn from closed tasks, beside `hyperfd serve`. Any number of workers, on any machines; SIGTERM ends one."""
    if not database.startswith("postgresql"):
        stop(f"--database {database}: a state in a file has its worker within 'hyperfd serve'; name one in PostgreSQL")
    if stalled <= heartbeat:
        stop("--stalled: it must be longer than --heartbeat, or workers take over from each other; make it longer")
    with readable_errors(Path(database), "server"):
        from nni_hyperfd.platform import EmbeddedPlatform
        from nni_hyperfd.server.chores import Pace
        from nni_hyperfd.server.job_queue import work

        platform = EmbeddedPlatform(database)
        try:
            work(platform, database, Pace(every, heartbeat, stalled, abandoned_days))
        finally:
            platform.close()
