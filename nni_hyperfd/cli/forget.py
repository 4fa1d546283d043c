"""The command that deletes tasks from a platform's database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nni_hyperfd.cli.console import readable_errors, say, stop
from nni_hyperfd.cli.db import Database
from nni_hyperfd.experiment.class_args import WARM_STATE

if TYPE_CHECKING:
    from nni_hyperfd.platform.forgetting import Deleted


def forget(
    database: Database,
    tasks: Annotated[list[int] | None, typer.Argument(help="Ids of tasks.")] = None,
    tenant: Annotated[str | None, typer.Option(help="All tasks of this tenant.")] = None,
    extractor: Annotated[
        bool, typer.Option("--extractor", help="Begin with the package's extractor again, in which no update is.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete tasks with their descriptions and results, and say what is left of them where."""
    if not tasks and tenant is None and not extractor:
        stop("name tasks, --tenant or --extractor")
    with readable_errors(Path(database), "server"):
        from nni_hyperfd.platform import EmbeddedPlatform, forgetting
        from nni_hyperfd.state.store import Store

        Store(database, create=False).close()
        platform = EmbeddedPlatform(database)
        try:
            if not yes:
                typer.confirm(f"Delete this from {platform.store.name} for good?", abort=True)
            if tasks:
                _say(forgetting.forget_tasks(platform, tasks))
            if tenant is not None:
                _say(forgetting.forget_tenant(platform, tenant))
            if extractor:
                version_id = forgetting.begin_extractor_again(platform, WARM_STATE)
                say(f"The extractor is the package's again, as version {version_id}.")
        finally:
            platform.close()


def _say(deleted: Deleted) -> None:
    for line in deleted.sentences():
        say(line)
