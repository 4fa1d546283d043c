"""The commands that look into a state: status, tasks, recommend."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Column, Table

from nni_hyperfd.cli.console import State, console, open_state, read_json, stop
from nni_hyperfd.platform import Platform, TaskView
from nni_hyperfd.space import PARAMETERS, Architecture, Configuration, SearchSpace
from nni_hyperfd.task import Preset, Status, TaskSettings


def status(state: State) -> None:
    """What the state holds: tasks, trials, versions, size."""
    platform = open_state(state)
    known, warm = _own_and_offline(platform)
    trials = [trial for task in known for trial in task.trials if trial.tries]
    console.print(f"State {state}", soft_wrap=True, highlight=False)
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
    table.add_row("size", f"{state.stat().st_size / 2**20:.2f} MiB")
    console.print(table)


def tasks(
    state: State,
    warm_up: Annotated[bool, typer.Option("--warm-up", help="Those of the warm-up, which no user had.")] = False,
) -> None:
    """One line per task: its data set in numbers, and what came out."""
    own, offline = _own_and_offline(open_state(state))
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
    if offline and not warm_up:
        console.print(f"The state began with a warm-up of {len(offline)} tasks: --warm-up lists them.")


def recommend(
    state: State,
    space: Annotated[Path, typer.Option(help="NNI search space file (JSON).")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print; trials are started by NNI.")] = False,
    task: Annotated[int | None, typer.Option(help="Rank for the data set of this past task.")] = None,
    candidates: Annotated[int, typer.Option(min=1)] = TaskSettings.candidates,
    seed: Annotated[int, typer.Option(min=0)] = TaskSettings.seed,
    preset: Annotated[Literal["default", "paper"], typer.Option(help="How to rank.")] = "default",
    top: Annotated[int, typer.Option(min=1, help="Lines to print.")] = 10,
) -> None:
    """The ranked configurations and the past tasks they lean on, before anything is paid for.

    With the default preset a score is given with its standard deviation, in normal scores: 0 is the middle of the
    candidates, 1 better than 84 % of them.
    """
    if not dry_run:
        stop("recommendations are run by 'nnictl create'; add --dry-run to see them here")
    platform = open_state(state)
    search_space = SearchSpace.from_nni(read_json(space))
    budget = min(TaskSettings.budget, candidates)
    settings = TaskSettings(budget=budget, candidates=candidates, seed=seed, preset=Preset(preset))
    ranking = platform.rank(search_space, task, settings)
    shown = [_cells(search_space, pick.configuration) for pick in ranking.recommendations[:top]]
    names = [Column(name, overflow="fold") for name in ("rank", "score", *shown[0])]
    table = Table(*names, title=f"Best of {len(ranking.recommendations)} candidates")
    for pick, cells in zip(ranking.recommendations, shown, strict=False):
        deviation = "" if pick.deviation is None else f" ± {pick.deviation:.2f}"
        table.add_row(str(pick.rank), f"{pick.score:.2f}{deviation}", *cells.values())
    console.print(table)
    if task is None:
        console.print("Ranked without a meta-feature: name a past task with --task to rank for its data set.")
    for past in ranking.neighbours[:5]:
        weight = "" if past.weight is None else f", weight {past.weight:.2f}"
        console.print(f"  near: task {past.task_id}, distance {past.distance:.3f}{weight}")


def _own_and_offline(platform: Platform) -> tuple[list[TaskView], list[TaskView]]:
    """The users' tasks, and those that stand for the platform's own data sets."""
    known = platform.tasks()
    return [task for task in known if task.dataset is None], [task for task in known if task.dataset is not None]


def _cells(space: SearchSpace, configuration: Configuration) -> dict[str, str]:
    """A configuration by columns; an architecture takes one, not one for each of its blocks' parameters."""
    if space.architectures is None:
        return {name: str(value) for name, value in configuration.items()}
    others = {name: str(value) for name, value in configuration.items() if name not in PARAMETERS}
    return others | {"architecture": str(Architecture.of(configuration))}


def _number(value: float | None) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.4f}"
