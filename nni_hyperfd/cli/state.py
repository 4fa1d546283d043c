"""`hyperfd`: look into the state, try a recommendation, move experience, register with NNI."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Column, Table

from nni_hyperfd.cli.benchmark import benchmark, make_table
from nni_hyperfd.cli.data import data
from nni_hyperfd.cli.reproduce import reproduce
from nni_hyperfd.cli.warmup import warmup
from nni_hyperfd.platform.platform import Platform
from nni_hyperfd.space.architecture import PARAMETERS, Architecture
from nni_hyperfd.space.search_space import Configuration, SearchSpace, SpaceError
from nni_hyperfd.state.exchange import DocumentError
from nni_hyperfd.state.experience import is_offline
from nni_hyperfd.state.store import StateError, Task, default_state
from nni_hyperfd.task import FINE_TUNE, IMPORT, PRESETS, TaskSettings
from nni_hyperfd.wire import ReportError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, help=__doc__
)
console = Console()

State = Annotated[
    Path, typer.Option(help="The state file.", default_factory=default_state, show_default="in the user's data folder")
]


@app.command()
def status(state: State) -> None:
    """What the state holds: tasks, trials, versions, size."""
    platform = _open(state)
    known, warm = _own_and_offline(platform)
    results = [trial for task in known for trial in task.trials if trial.phase in (FINE_TUNE, IMPORT)]
    console.print(f"State {state}", soft_wrap=True, highlight=False)
    table = Table(show_header=False)
    table.add_row("tasks", f"{len(known)}, {sum(task.closed is not None for task in known)} of them closed")
    for name in ("succeeded", "failed", "running", "planned"):
        table.add_row(f"trials {name}", str(sum(trial.status == name for trial in results)))
    for signature, kind in dict.fromkeys((task.space.signature, task.space.kind) for task in warm):
        results = [len(task.trials) for task in warm if task.space.signature == signature]
        table.add_row(f"warm-up, {kind}", f"{sum(results)} results on {len(results)} data sets")
    for name, count in platform.counts().items():
        table.add_row(name, str(count))
    table.add_row("size", f"{state.stat().st_size / 2**20:.2f} MiB")
    console.print(table)


@app.command()
def tasks(
    state: State,
    warm_up: Annotated[bool, typer.Option("--warm-up", help="Those of the warm-up, which no user had.")] = False,
) -> None:
    """One line per task: its data set in numbers, and what came out."""
    own, offline = _own_and_offline(_open(state))
    table = Table("task", "experiment", "space", "images", "boxes", "AP@50 before", "best", "results", "closed")
    for task in offline if warm_up else own:
        results = [t.performance for t in task.trials if t.phase in (FINE_TUNE, IMPORT) and t.performance is not None]
        best = (max if task.settings["maximize"] else min)(results, default=None)
        table.add_row(
            str(task.id),
            task.experiment,
            task.space.kind,
            *(_number(value) for value in (task.num_images, task.num_boxes, task.baseline, best)),
            str(len(results)),
            "-" if task.closed is None else f"{task.closed:%Y-%m-%d}",
        )
    console.print(table)
    if offline and not warm_up:
        console.print(f"The state began with a warm-up of {len(offline)} tasks: --warm-up lists them.")


@app.command()
def recommend(
    state: State,
    space: Annotated[Path, typer.Option(help="NNI search space file (JSON).")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print; trials are started by NNI.")] = False,
    task: Annotated[int | None, typer.Option(help="Rank for the data set of this past task.")] = None,
    candidates: Annotated[int, typer.Option(min=1)] = 200,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    preset: Annotated[Literal[PRESETS], typer.Option(help="How to rank.")] = "default",
    top: Annotated[int, typer.Option(min=1, help="Lines to print.")] = 10,
) -> None:
    """The ranked configurations and the past tasks they lean on, before anything is paid for.

    With the default preset a score is given with its standard deviation, in normal scores: 0 is the middle of the
    candidates, 1 better than 84 % of them.
    """
    if not dry_run:
        _stop("recommendations are run by 'nnictl create'; add --dry-run to see them here")
    platform = _open(state)
    search_space = SearchSpace.from_nni(_read_json(space))
    ranking = platform.rank(search_space, task, TaskSettings(candidates=candidates, seed=seed, preset=preset))
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


@app.command("export")
def export_experience(file: Path, state: State) -> None:
    """Write all experience as JSON: tasks, meta-features, configurations, results. No weights."""
    document = _open(state).export()
    try:
        file.write_text(json.dumps(document, indent=1))
    except OSError as error:
        _stop(f"{file}: {error.strerror}")
    console.print(f"{len(document['tasks'])} tasks written to {file}")


@app.command("import")
def import_experience(file: Path, state: State) -> None:
    """Add the experience of an exported file. Tasks that the state has already are left as they are."""
    added = Platform(state).import_(_read_json(file))
    console.print(f"{added} tasks added to {state}")


@app.command()
def offline(files: list[Path], state: State) -> None:
    """Add the server's own data sets (D_off), as trial_code/pretrain.py writes them."""
    platform = Platform(state)
    for file in files:
        try:
            platform.add_offline(file.stem, file.read_bytes())
        except OSError as error:
            _stop(f"{file}: {error.strerror}")
    console.print(f"{len(files)} offline data sets added to {state}")


@app.command()
def synthetic(
    folder: Path,
    domain: Annotated[str, typer.Option(help="Which kind of scenes; nni_hyperfd.datasets.synthetic lists them.")],
    images: Annotated[tuple[int, int, int], typer.Option(help="Training, validation and test images.")] = (64, 32, 0),
    size: Annotated[int, typer.Option(min=64, help="Side of an image in pixels.")] = 160,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Draw a synthetic face data set, for trying things out without any real image."""
    from nni_hyperfd.datasets.synthetic import make

    try:
        make(folder, domain, images=images, size=size, seed=seed)
    except (ValueError, OSError) as error:
        _stop(str(error))
    console.print(f"Synthetic scenes of the domain {domain} in {folder}")


@app.command()
def register() -> None:
    """Make `tuner: {name: HyperFD}` known to the NNI of this environment."""
    from nni.tools.package_utils import AlgoMeta, register_algo_meta

    meta = {"builtinName": "HyperFD", "className": "nni_hyperfd.HyperFDAdvisor", "algoType": "advisor"}
    register_algo_meta(AlgoMeta.load(meta))
    console.print("Registered. In the experiment's configuration: tuner: {name: HyperFD, classArgs: {...}}")


app.command()(benchmark)
app.command("table")(make_table)
app.command()(reproduce)
app.add_typer(data, name="data")
app.add_typer(warmup, name="warmup")


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        app()
    except (StateError, SpaceError, ReportError, DocumentError) as error:
        _stop(str(error))


def _open(state: Path) -> Platform:
    if not state.exists():
        _stop(f"state {state}: there is none yet; run an experiment or name another file with --state")
    return Platform(state)


def _own_and_offline(platform: Platform) -> tuple[list[Task], list[Task]]:
    """The users' tasks, and those that stand for the platform's own data sets."""
    known = platform.tasks()
    return [task for task in known if not is_offline(task)], [task for task in known if is_offline(task)]


def _cells(space: SearchSpace, configuration: Configuration) -> dict[str, str]:
    """A configuration by columns; an architecture takes one, not one for each of its blocks' parameters."""
    if space.architectures is None:
        return {name: str(value) for name, value in configuration.items()}
    others = {name: str(value) for name, value in configuration.items() if name not in PARAMETERS}
    return others | {"architecture": str(Architecture.of(configuration))}


def _number(value: float | None) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.4f}"


def _read_json(file: Path) -> object:
    try:
        return json.loads(file.read_text())
    except OSError as error:
        _stop(f"{file}: {error.strerror}")
    except ValueError as error:
        _stop(f"{file}: this is no JSON ({error})")


def _stop(message: str) -> NoReturn:
    Console(stderr=True).print(f"hyperfd: {message}", soft_wrap=True, highlight=False, markup=False)
    raise SystemExit(1)
