"""The command `hyperfd`, put together from its groups."""

from __future__ import annotations

import logging

import typer

from nni_hyperfd.cli.benchmark import benchmark, make_table
from nni_hyperfd.cli.best import best
from nni_hyperfd.cli.console import stop
from nni_hyperfd.cli.data import data
from nni_hyperfd.cli.db import db
from nni_hyperfd.cli.detect import detect
from nni_hyperfd.cli.doctor import doctor
from nni_hyperfd.cli.forget import forget
from nni_hyperfd.cli.init import init
from nni_hyperfd.cli.moving import export_experience, import_experience, offline, relearn
from nni_hyperfd.cli.privacy import privacy
from nni_hyperfd.cli.recommend import recommend
from nni_hyperfd.cli.report import report
from nni_hyperfd.cli.reproduce import reproduce
from nni_hyperfd.cli.serve import serve
from nni_hyperfd.cli.setup import register, synthetic
from nni_hyperfd.cli.state import status, tasks
from nni_hyperfd.cli.tenant import tenant
from nni_hyperfd.cli.tune import tune
from nni_hyperfd.cli.warmup import warmup
from nni_hyperfd.cli.worker import worker
from nni_hyperfd.files import FolderError
from nni_hyperfd.privacy.settings import PrivacyError
from nni_hyperfd.space import SpaceError
from nni_hyperfd.state.exchange import DocumentError
from nni_hyperfd.state.store import RefusedError, StateError
from nni_hyperfd.task import SettingsError

_HELP = "Tune a face detector on your data; look into the state, try a recommendation, convert data, measure."

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, help=_HELP
)
for command in (
    tune,
    init,
    doctor,
    status,
    tasks,
    recommend,
    best,
    detect,
    report,
    offline,
    relearn,
    synthetic,
    register,
    benchmark,
    reproduce,
    serve,
    worker,
    forget,
):
    app.command()(command)
app.command("export")(export_experience)
app.command("import")(import_experience)
app.command("table")(make_table)
app.add_typer(data, name="data")
app.add_typer(db, name="db")
app.add_typer(privacy, name="privacy")
app.add_typer(tenant, name="tenant")
app.add_typer(warmup, name="warmup")


def main() -> None:
    """Run the command of the command line; what its user can put right ends it with status 1 and one sentence."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        app()
    except (StateError, SpaceError, RefusedError, DocumentError, FolderError, PrivacyError, SettingsError) as error:
        stop(str(error))
