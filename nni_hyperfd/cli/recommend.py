"""`hyperfd recommend`: the ranked configurations for a data set, before anything is paid for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Column, Table

from nni_hyperfd.cli.console import State, console, read_json, say, stop
from nni_hyperfd.cli.tune import Options, tuning_errors
from nni_hyperfd.platform import Platform, Ranking, TaskView
from nni_hyperfd.space import PARAMETERS, Architecture, Configuration, SearchSpace
from nni_hyperfd.task import Preset, TaskSettings

if TYPE_CHECKING:
    from nni_hyperfd.tuning.describing import Description

_NO_WEIGHT = 0.005  # of a past task: no trace of it is seen in a ranking


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
        described = None if data is None else _describe(platform, data, options)
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


def _describe(platform: Platform, data: Path, options: str) -> Description:
    from nni_hyperfd.tuning import data_set, describing

    with tuning_errors(data), data_set.looked_at(data, say) as loaded:
        return describing.describe(platform, loaded.train, options)


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
        weight = "" if past.weight is None else f", weight {past.weight:.2f}"
        words = task_in_words(by_id[past.task_id])
        say(f"{'like' if place == 0 else 'then'} {words}, distance {past.distance:.2f}{weight}")
    weights = [abs(past.weight) for past in ranking.neighbours if past.weight is not None]
    if weights and max(weights) < _NO_WEIGHT:
        say(
            "In what is known so far, being alike says nothing about which configuration is best: "
            "all data sets count alike."
        )
    first = ranking.recommendations[0].deviation
    if first is not None:
        say(
            f"How sure: {how_sure(first)}; the deviation of the first is {first:.2f}, where 1 is knowing nothing. "
            f"{len(known)} known data sets in this search space."
        )


def _cells(space: SearchSpace, configuration: Configuration) -> dict[str, str]:
    """A configuration by columns; an architecture takes one, not one for each of its blocks' parameters."""
    if space.architectures is None:
        return {name: str(value) for name, value in configuration.items()}
    others = {name: str(value) for name, value in configuration.items() if name not in PARAMETERS}
    return others | {"architecture": str(Architecture.of(configuration))}
