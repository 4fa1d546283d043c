"""The commands for the tenants of a server, which work on its database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from nni_hyperfd.cli.console import readable_errors, say
from nni_hyperfd.cli.db import Database
from nni_hyperfd.experiment.class_args import WARM_STATE
from nni_hyperfd.state import tenants
from nni_hyperfd.state.store import Store
from nni_hyperfd.task import Scope

tenant = typer.Typer(no_args_is_help=True, help="Who may use a server: names, tokens, quotas.")

_Name = Annotated[str, typer.Argument(help="Of the tenant.")]
_Scope = Annotated[
    Scope, typer.Option(help="read: look at its own tasks. client: run tasks. admin: see and delete those of all.")
]
_Days = Annotated[int, typer.Option(min=1, max=3650, help="Until the token expires.")]


@tenant.command()
def add(
    name: _Name,
    database: Database,
    scope: _Scope = Scope.CLIENT,
    days: _Days = tenants.DAYS,
    open_tasks: Annotated[
        int | None, typer.Option(min=0, help=f"At once; {tenants.OPEN_TASKS} for a new tenant, 0 for any number.")
    ] = None,
    tasks_a_day: Annotated[
        int | None,
        typer.Option(min=0, help=f"Within 24 hours; {tenants.TASKS_A_DAY} for a new tenant, 0 for any number."),
    ] = None,
    warm_start: Annotated[
        bool, typer.Option(help="Whether a new state begins with the warm-up of the package.")
    ] = True,
) -> None:
    """Add a tenant and print its token, or give a tenant one more token or other quotas.

    A state that does not exist is made, as by `hyperfd serve`.
    """
    with _tenants(database, True, WARM_STATE if warm_start else None) as known:
        _show(known.add(name, scope, days, open_tasks, tasks_a_day), scope, days)


@tenant.command("list")
def list_tenants(database: Database) -> None:
    """Tenants, how much of the server they use, and their tokens by the first digits of the hash; times are UTC."""
    with _tenants(database) as known:
        found = known.list()
    for one in found:
        say(
            f"{one.name}: {one.tasks} tasks; {one.open} are open of {_limit(one.open_tasks)}; "
            f"{_limit(one.tasks_a_day)} may begin within 24 hours"
        )
        for token in one.tokens:
            say(f"  {token.fingerprint}  {token.scope:6}  made {token.created:%Y-%m-%d}  {_until(token)}")


@tenant.command()
def rotate(
    name: _Name,
    database: Database,
    scope: _Scope = Scope.CLIENT,
    days: _Days = tenants.DAYS,
    overlap: Annotated[
        float, typer.Option(min=0, max=8760, help="Hours that the earlier tokens stay valid.")
    ] = tenants.OVERLAP_HOURS,
) -> None:
    """Print a new token in place of the tenant's valid ones of that scope, which soon expire."""
    with _tenants(database) as known:
        _show(known.rotate(name, scope, days, overlap), scope, days)
    say(f"Earlier tokens of scope {scope} are valid for {overlap:g} hours more.")


@tenant.command()
def revoke(
    name: _Name,
    database: Database,
    token: Annotated[str | None, typer.Option(help="Its fingerprint; all of them unless it is named.")] = None,
) -> None:
    """Make tokens of a tenant invalid. Servers notice within seconds."""
    with _tenants(database) as known:
        revoked = known.revoke(name, token)
    say(f"Revoked: {', '.join(revoked) or 'none was valid'}")


@tenant.command()
def remove(name: _Name, database: Database) -> None:
    """Remove a tenant that has no tasks, and its tokens."""
    with _tenants(database) as known:
        known.remove(name)
    say(f"Removed: {name}")


@contextmanager
def _tenants(database: str, create: bool = False, warm_start: Path | None = None) -> Iterator[tenants.Tenants]:
    with readable_errors(Path(database), "server"):
        store = Store(database, warm_start, create)
        try:
            yield tenants.Tenants(store)
        finally:
            store.close()


def _show(token: str, scope: Scope, days: int) -> None:
    say(token)
    say(f"This token (scope {scope}, valid for {days} days) is not shown again; keep it like a password.")


def _limit(number: int | None) -> str:
    return "any number" if number is None else str(number)


def _until(token: tenants.TokenView) -> str:
    if token.revoked is not None:
        return f"revoked {token.revoked:%Y-%m-%d %H:%M}"
    return f"{'valid until' if token.valid else 'expired'} {token.expires:%Y-%m-%d %H:%M}"
