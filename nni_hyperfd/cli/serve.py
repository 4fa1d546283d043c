"""The command that shares a platform over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nni_hyperfd.cli.console import readable_errors, say
from nni_hyperfd.experiment.class_args import WARM_STATE


def serve(
    database: Annotated[
        str, typer.Option(help="postgresql+psycopg://USER@HOST/DATABASE, or a state file for a first look.")
    ],
    host: Annotated[str, typer.Option(help="Name or address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8440,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file.", exists=True, dir_okay=False)] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file.", exists=True, dir_okay=False)] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Answer other machines without TLS; for a proxy that adds it.")
    ] = False,
    requests_a_minute: Annotated[int, typer.Option(min=1, help="Of one tenant, to this process.")] = 3000,
    access_log: Annotated[
        Path | None, typer.Option(help="File for a line of JSON for each request; the error output by default.")
    ] = None,
    audit_log: Annotated[
        Path | None, typer.Option(help="File for who opened, closed and deleted which task; also the error output.")
    ] = None,
    abandoned_days: Annotated[
        float, typer.Option(min=0.01, help="Days without news that close a task; in PostgreSQL, workers do that.")
    ] = 14.0,
    warm_start: Annotated[
        bool, typer.Option(help="Whether a new state begins with the warm-up of the package.")
    ] = True,
) -> None:
    """Share a platform with other machines. Whoever uses it needs a token, which `hyperfd tenant add` makes."""
    with readable_errors(tls_certificate or Path(host), "server"):
        from nni_hyperfd.server import chores, limits, logs, running

        listening = running.Listening(host, port, tls_certificate, tls_key, insecure)
        logs.begin(access_log, audit_log)
        given, pace = limits.Limits(requests_a_minute), chores.Pace(abandoned_days=abandoned_days)
        running.serve(database, WARM_STATE if warm_start else None, listening, given, pace, say)
