"""`hyperfd report`: the page of a task on the client's side, or that of a state on the platform's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nni_hyperfd.cli.best import TaskArgument, experiment_of
from nni_hyperfd.cli.console import State, console, readable_errors, stop


def report(
    state: State,
    task: TaskArgument = None,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    whole: Annotated[bool, typer.Option("--whole", help="The whole state in place of one task.")] = False,
    price: Annotated[float | None, typer.Option(min=0, help="Of an hour of a trial, in any currency.")] = None,
) -> None:
    """Write one offline HTML page: what a task has gained and why, or with --whole how the state has developed."""
    if whole:
        if task is not None:
            stop("--whole is about the whole state; leave the task out")
        with readable_errors(out, "detector"):
            from nni_hyperfd.report import state as of_state

            of_state.write(state, out)
    else:
        experiment, _ = experiment_of(task, state)
        with readable_errors(out, "detector"):
            from nni_hyperfd.report import task as of_task

            of_task.write(experiment, out, state, price, lambda line: console.print(line, highlight=False))
    console.print(f"{out} ({out.stat().st_size / 2**20:.1f} MiB)", soft_wrap=True, highlight=False)
