"""`hyperfd benchmark`: recommenders on tables, under the online protocol. `hyperfd table`: a table of measurements."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Column
from rich.table import Table as Printed

if TYPE_CHECKING:
    from nni_hyperfd.benchmark.protocol import Protocol
    from nni_hyperfd.benchmark.report import RecommenderRun, Summary
    from nni_hyperfd.benchmark.tables import Table
    from nni_hyperfd.recommenders import Recommender


def benchmark(
    tables: Annotated[list[Path], typer.Argument(help="Folders of tables.")],
    recommenders: Annotated[
        str, typer.Option(help="Names, separated by commas, or all; your own as module:Class.")
    ] = "random,mean_rank,knn,hyperfd",
    seeds: Annotated[int, typer.Option(min=1, help="How many runs, each with its own seed.")] = 20,
    first_seed: Annotated[int, typer.Option(min=0, help="The first run's seed; the next ones follow.")] = 0,
    budget: Annotated[
        str, typer.Option(help="Picks per task; several, separated by commas, are run one by one and drawn.")
    ] = "4",
    concurrency: Annotated[int, typer.Option(min=1, help="Trials that run side by side, as NNI's.")] = 1,
    candidates: Annotated[int, typer.Option(min=2, help="Configurations per task, drawn afresh.")] = 200,
    reveal: Annotated[str, typer.Option(help="What is known after a task: all, or how many beside the picks.")] = "all",
    tasks: Annotated[int, typer.Option(min=2, help="Tasks per run, at most.")] = 16,
    meta_features: Annotated[bool, typer.Option(help="Whether recommenders see the tasks' meta-features.")] = True,
    out: Annotated[Path, typer.Option(help="Folder for the CSVs and the figure.")] = Path("benchmark"),
) -> None:
    """Compare recommenders on tables of real measurements."""
    from nni_hyperfd.benchmark.own import RecommenderError, maker
    from nni_hyperfd.benchmark.protocol import Protocol
    from nni_hyperfd.benchmark.tables import TableError, load_all

    budgets = [_number("--budget", text, least=1) for text in _listed(budget)]
    revealed = None if reveal == "all" else _number("--reveal", reveal, least=0)
    protocols = [Protocol(tasks, candidates, picks, concurrency, revealed, meta_features) for picks in budgets]
    console = Console()
    try:
        makers = {name: maker(name) for name in _names(recommenders)}
        loaded = load_all(tables)
        out.mkdir(parents=True, exist_ok=True)
    except (TableError, RecommenderError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    try:
        runs = list(_runs(loaded, protocols, makers, range(first_seed, first_seed + seeds), out / "runs.csv", console))
    except RecommenderError as error:
        Console(stderr=True).print(f"hyperfd: {error}", soft_wrap=True, highlight=False, markup=False)
        raise typer.Exit(1) from None
    _report(loaded, runs, budgets, out, console)


def make_table(
    folder: Annotated[Path, typer.Argument(help="What trial_code/measure.py has filled, or is filling.")],
    out: Annotated[Path, typer.Argument(help="Folder for the table.")],
    about: Annotated[
        Path | None, typer.Option(help="Markdown for its README: what the images are, their licences.")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="Folder of the data sets' image features, by trial_code/describe.py --whole.")
    ] = None,
    server: Annotated[str, typer.Option(help="Data sets that are the server's own, separated by commas.")] = "",
) -> None:
    """Make a table for `hyperfd benchmark` of measured configurations."""
    from nni_hyperfd.benchmark import lookup, measured
    from nni_hyperfd.benchmark.tables import TableError

    try:
        own = _listed(server) if server else []
        written = lookup.write(measured.read(folder), out, about.read_text() if about else "", features, own)
    except (TableError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    size = f"{len(written.tasks)} data sets x {len(written.configurations)} configurations"
    Console().print(f"{out}: {size}. {written.gaps}", soft_wrap=True, highlight=False, markup=False)


def _names(text: str) -> list[str]:
    """The recommenders that are named, each once; `all` stands for the built-in ones."""
    from nni_hyperfd.recommenders import NAMES

    named = ((name,) if name != "all" else NAMES for name in _listed(text))
    return list(dict.fromkeys(itertools.chain.from_iterable(named)))


def _runs(
    tables: Sequence[Table],
    protocols: Sequence[Protocol],
    makers: Mapping[str, Callable[[int], Recommender]],
    seeds: Iterable[int],
    path: Path,
    console: Console,
) -> Iterator[RecommenderRun]:
    """Do all runs, with a progress bar; each one's row is in the file at `path` when it is yielded."""
    from nni_hyperfd.benchmark.report import COLUMNS
    from nni_hyperfd.benchmark.server import timed_run
    from nni_hyperfd.files import RowFile

    path.unlink(missing_ok=True)
    file = RowFile(path, COLUMNS)
    wanted = list(itertools.product(tables, protocols, makers.items(), seeds))
    bar = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn(), console=console)
    with bar:
        progress = bar.add_task("", total=len(wanted))
        for table, protocol, (name, make), seed in wanted:
            bar.update(progress, description=f"{table.name}, budget {protocol.budget}, {name}")
            run = timed_run(table, protocol, name, make, seed)
            file.add(run.row)
            bar.advance(progress)
            yield run


def _report(
    tables: Sequence[Table], runs: Sequence[RecommenderRun], budgets: Sequence[int], out: Path, console: Console
) -> None:
    """Write the summary and, for several budgets, the figure; print a table for each table and budget."""
    from nni_hyperfd.benchmark import report

    summaries = report.summarised(runs)
    report.write_summary(summaries, out / "summary.csv")
    if len(budgets) > 1:
        report.draw(summaries, out / "rank_against_budget.png")
    for table, picks in itertools.product(tables, budgets):
        chosen = [one for one in summaries if (one.table, one.budget) == (table.name, picks)]
        console.print(_printed(f"{table.name}, budget {picks}", chosen))
    for table in tables:
        if table.gaps:
            console.print(f"{table.name}: {table.gaps}")
    console.print(f"Per seed: {out / 'runs.csv'}; means and differences: {out / 'summary.csv'}")


def _listed(text: str) -> list[str]:
    """What stands between the commas, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",")))


def _number(option: str, text: str, least: int) -> int:
    """The whole number that an option was given."""
    if not text.isdecimal() or int(text) < least:
        raise typer.BadParameter(f"{option} takes whole numbers, {least} or greater, not {text!r}")
    return int(text)


def _printed(title: str, summaries: Sequence[Summary]) -> Printed:
    """What fits into 80 columns; the CSV has the rest."""
    from nni_hyperfd.benchmark.report import REFERENCE

    columns = ("recommender", "Rank%", f"- {REFERENCE}", "first half -", "second half -")
    printed = Printed(*(Column(name, no_wrap=True) for name in columns), title=title, box=SIMPLE, padding=(0, 1, 0, 0))
    for one in summaries:
        differences = [one.differences.get(name, "") for name in ("rank_percent", "first_half", "second_half")]
        printed.add_row(one.recommender, *map(str, (one.measures["rank_percent"], *differences)))
    return printed
