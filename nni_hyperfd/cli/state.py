"""The commands that look into a state: status and tasks."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from nni_hyperfd.cli.console import State, console, say
from nni_hyperfd.platform import Platform, TaskView
from nni_hyperfd.task import Status


def status(state: State) -> None:
    """What the state holds: tasks, trials, versions, size."""
    from nni_hyperfd.tuning.first_look import state_or_warm_up

    with state_or_warm_up(state) as platform:
        say(f"State {state}")
        if platform.store.path != state:
            say("There is none yet. The first experiment makes it; it will begin with the warm-up of the package:")
        known, warm = _own_and_offline(platform)
        trials = [trial for task in known for trial in task.trials if trial.tries]
        table = Table(show_header=False)
        table.add_row("tasks", f"{len(known)}, {sum(task.closed is not None for task in known)} of them closed")
        for state_of_trial in (Status.SUCCEEDED, Status.FAILED, Status.RUNNING, Status.PLANNED):
            count = sum(trial.status is state_of_trial for trial in trials)
            table.add_row(f"trials {state_of_trial}", str(count))
        for space in {task.space.signature: task.space for task in warm}.values():
            results = [len(task.trials) for task in warm if task.space.signature == space.signature]
            table.add_row(f"warm-up, {space.kind}", f"{sum(results)} results on {len(results)} data sets")
        for name, number in platform.counts().items():
            table.add_row(name, str(number))
        table.add_row("size", f"{platform.store.path.stat().st_size / 2**20:.2f} MiB")
    console.print(table)


def tasks(
    state: State,
    warm_up: Annotated[bool, typer.Option("--warm-up", help="Those of the warm-up, which no user had.")] = False,
) -> None:
    """One line per task: its data set in numbers, and what came out."""
    from nni_hyperfd.tuning.first_look import state_or_warm_up

    with state_or_warm_up(state) as platform:
        own, offline = _own_and_offline(platform)
    table = Table("task", "experiment", "space", "images", "boxes", "AP@50 before", "best", "results", "closed")
    for task in offline if warm_up else own:
        table.add_row(
            str(task.id),
            task.experiment,
            task.space.kind,
            *(_number(value) for value in (task.num_images, task.num_boxes, task.baseline, task.best)),
            str(len(task.results.performance)),
            "-" if task.closed is None else f"{task.closed:%Y-%m-%d}",
        )
    console.print(table)
    if not state.exists():
        say(f"State {state}: there is none yet; the first experiment makes it, for example `hyperfd tune DATA`.")
    elif offline and not warm_up:
        console.print(f"The state began with a warm-up of {len(offline)} tasks: --warm-up lists them.")


def _own_and_offline(platform: Platform) -> tuple[list[TaskView], list[TaskView]]:
    """The users' tasks, and those that stand for the platform's own data sets."""
    known = platform.tasks()
    return [task for task in known if task.dataset is None], [task for task in known if task.dataset is not None]


def _number(value: float | None) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.4f}"
