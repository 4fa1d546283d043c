"""The commands that look into a state: status, tasks, recommend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Column, Table

from nni_hyperfd.cli.console import State, console, read_json, say, stop
from nni_hyperfd.cli.tune import Config, Options, StartOption, tuning_errors
from nni_hyperfd.platform import Platform, Ranking, TaskView
from nni_hyperfd.space import PARAMETERS, Architecture, Configuration, SearchSpace
from nni_hyperfd.task import Preset, Status, TaskSettings

if TYPE_CHECKING:
    from nni_hyperfd.tuning.describing import Description


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


def recommend(
    state: State,
    data: Annotated[
        Path | None, typer.Argument(help="A data set in any layout that is known, described here and now.")
    ] = None,
    space: Annotated[str, typer.Option(help="hpo, nas, joint, extended, or a NNI search space file (JSON).")] = "hpo",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print; trials are started by NNI. DATA needs no such word.")
    ] = False,
    task: Annotated[int | None, typer.Option(help="Rank for the data set of this past task.")] = None,
    start: StartOption = None,
    config: Config = None,
    candidates: Annotated[int, typer.Option(min=1)] = TaskSettings.candidates,
    seed: Annotated[int, typer.Option(min=0)] = TaskSettings.seed,
    preset: Annotated[Literal["default", "paper"], typer.Option(help="How to rank.")] = "default",
    top: Annotated[int, typer.Option(min=1, help="Lines to print.")] = 10,
    options: Options = "",
) -> None:
    """The ranked configurations and the past tasks they lean on, before anything is paid for.

    With the default preset a score is given with its standard deviation, in normal scores: 0 is the middle of the
    candidates, 1 better than 84 % of them. DATA is described on the spot: nothing is stored or sent. Where there is no
    state yet, the warm-up of the package is used.
    """
    from nni_hyperfd.tuning.first_look import spread, state_or_warm_up

    if data is None and not dry_run:
        stop("recommendations are run by 'hyperfd tune DATA' or 'nnictl create'; name DATA or add --dry-run")
    if data is not None and task is not None:
        stop("--task names the data set of a past task; leave it out, or DATA")
    search_space = SearchSpace.from_nni(_definition(space))
    budget = min(TaskSettings.budget, candidates)
    settings = TaskSettings(budget=budget, candidates=candidates, seed=seed, preset=Preset(preset))
    with state_or_warm_up(state) as platform:
        if not state.exists():
            say(f"State {state}: there is none yet, so the warm-up of the package is what is known.")
        described = None if data is None else _describe(platform, data, search_space.kind, start, config, options)
        ranking = platform.rank(search_space, task, settings, None if described is None else described.meta_feature)
        known = [past for past in platform.tasks() if past.space.signature == search_space.signature]
    gains = described is not None and ranking.recommendations[0].deviation is not None
    _print_ranking(search_space, ranking, spread(ranking, known) if gains else None, top)
    if described is None:
        _print_neighbours(ranking, task)
    else:
        _print_likeness(described, ranking, known)


def _definition(space: str) -> object:
    from nni_hyperfd.tuning.plan import SPACES, space_definition

    return space_definition(space) if space in SPACES else read_json(Path(space))


def _describe(
    platform: Platform, data: Path, kind: str, start: Path | None, config: Path | None, options: str
) -> Description:
    from nni_hyperfd.tuning import data_set, describing, plan

    with tuning_errors(data), data_set.looked_at(data, say) as loaded:
        named = None if start is None and config is None else plan.start_of(kind, start, config)
        return describing.describe(platform, loaded.train, named, options)


def _print_ranking(space: SearchSpace, ranking: Ranking, scale: float | None, top: int) -> None:
    """The best candidates: their scores, the gain in AP that a `scale` for scores makes of them, and what they are."""
    shown = [_cells(space, pick.configuration) for pick in ranking.recommendations[:top]]
    columns = ("rank", "score", *(("gain",) if scale is not None else ()), *shown[0])
    names = [Column(name, overflow="fold") for name in columns]
    table = Table(*names, title=f"Best of {len(ranking.recommendations)} candidates")
    for pick, cells in zip(ranking.recommendations, shown, strict=False):
        deviation = "" if pick.deviation is None else f" ± {pick.deviation:.2f}"
        row = [str(pick.rank), f"{pick.score:.2f}{deviation}"]
        if scale is not None and pick.deviation is not None:
            row.append(f"{100 * scale * pick.score:+.1f} ± {100 * scale * pick.deviation:.1f}")
        table.add_row(*row, *cells.values())
    console.print(table)
    if scale is not None:
        say("gain: points of AP@50 over the middle of the candidates, as far as they differed on past data sets.")


def _print_neighbours(ranking: Ranking, task: int | None) -> None:
    """The past tasks that lie nearest to a past one."""
    if task is None:
        console.print("Ranked without a meta-feature: name DATA, or a past task with --task, to rank for a data set.")
    for past in ranking.neighbours[:5]:
        weight = "" if past.weight is None else f", weight {past.weight:.2f}"
        console.print(f"  near: task {past.task_id}, distance {past.distance:.3f}{weight}")


def _print_likeness(described: Description, ranking: Ranking, known: Sequence[TaskView]) -> None:
    """What the data set is like, in words, and how sure the first recommendation is."""
    from nni_hyperfd.tuning.first_look import how_sure, task_in_words

    by_id = {past.id: past for past in known}
    say(f"Your data: {described.words}. Nothing of it was stored or sent.")
    nearest = [past for past in ranking.neighbours if past.task_id in by_id][:3]
    if not nearest:
        say("No known data set to compare it with: the ranking is the same for all data sets.")
    for place, past in enumerate(nearest):
        say(f"{'like' if place == 0 else 'then'} {task_in_words(by_id[past.task_id])}, distance {past.distance:.2f}")
    first = ranking.recommendations[0].deviation
    if first is not None:
        say(
            f"How sure: {how_sure(first)}; the deviation of the first is {first:.2f}, where 1 is knowing nothing. "
            f"{len(known)} known data sets in this search space."
        )


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
