"""`hyperfd benchmark`: recommenders on tables, under the online protocol. `hyperfd table`: a table of measurements."""

from __future__ import annotations

import itertools
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nni_hyperfd.benchmark.options import NoiseOption, OfflineOption, RegimeOption, ServerOption, listed, server_names
from nni_hyperfd.benchmark.regime import Regime
from nni_hyperfd.files import FolderError


def benchmark(
    tables: Annotated[list[Path], typer.Argument(help="Folders of tables.")],
    recommenders: Annotated[
        str, typer.Option(help="Names, separated by commas, or all; your own as module:Class.")
    ] = "random,mean_rank,knn,hyperfd",
    regime: RegimeOption = Regime.REAL,
    offline: OfflineOption = None,
    server: ServerOption = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many runs, each with its own seed.")] = 20,
    first_seed: Annotated[int, typer.Option(min=0, help="The first run's seed; the next ones follow.")] = 0,
    budget: Annotated[
        str, typer.Option(help="Picks per task; several, separated by commas, are run one by one and drawn.")
    ] = "4",
    concurrency: Annotated[int, typer.Option(min=1, help="Trials that run side by side, as NNI's.")] = 1,
    candidates: Annotated[int, typer.Option(min=2, help="Configurations per task, drawn afresh.")] = 200,
    tasks: Annotated[int, typer.Option(min=1, help="Tasks per run, at most.")] = 16,
    meta_features: Annotated[bool, typer.Option(help="Whether recommenders see the tasks' meta-features.")] = True,
    noise: NoiseOption = None,
    reference: Annotated[str, typer.Option(help="The recommender that the others are compared with.")] = "mean_rank",
    out: Annotated[Path, typer.Option(help="Folder for the results and the figure.")] = Path("benchmark"),
) -> None:
    """Compare recommenders on tables of real measurements."""
    from nni_hyperfd.benchmark import report, results
    from nni_hyperfd.benchmark.own import RecommenderError, maker
    from nni_hyperfd.benchmark.protocol import Protocol, ProtocolError
    from nni_hyperfd.benchmark.tables import TableError, load_all

    budgets = [_number("--budget", text, least=1) for text in listed(budget)]
    try:
        makers = {name: maker(name) for name in _names(recommenders)}
        loaded = load_all(tables, server_names(server))
        protocols = [
            Protocol(regime, offline, tasks, candidates, picks, concurrency, meta_features, noise) for picks in budgets
        ]
        wanted = [
            results.Wanted(table, protocol.on(table), name, make, seed)
            for table, protocol, (name, make) in itertools.product(loaded, protocols, makers.items())
            for seed in range(first_seed, first_seed + seeds)
        ]
        for file in (results.FILE, results.IDENTITY):  # one's own recommenders may have changed
            (out / file).unlink(missing_ok=True)
        kept = results.open_runs(out, loaded)
    except (TableError, ProtocolError, RecommenderError, FolderError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    console = Console()
    try:
        runs = results.all_of(wanted, kept, console)
    except RecommenderError as error:
        Console(stderr=True).print(f"hyperfd: {error}", soft_wrap=True, highlight=False, markup=False)
        raise typer.Exit(1) from None
    report.publish(runs, loaded, reference, shlex.join(["hyperfd", *sys.argv[1:]]), out, console)


def make_table(
    folder: Annotated[Path, typer.Argument(help="What trial_code/measure.py has filled, or is filling.")],
    out: Annotated[Path, typer.Argument(help="Folder for the table.")],
    about: Annotated[
        Path | None, typer.Option(help="Markdown for its README: what the images are, their licences.")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="Folder of the data sets' image features, by trial_code/describe.py --whole.")
    ] = None,
    only: Annotated[str, typer.Option(help="Data sets to take, separated by commas; all by default.")] = "",
    server: Annotated[str, typer.Option(help="Data sets that are the server's own, separated by commas.")] = "",
) -> None:
    """Make a table for `hyperfd benchmark` of measured configurations."""
    from nni_hyperfd.benchmark import lookup, measured
    from nni_hyperfd.benchmark.tables import TableError

    try:
        found = measured.read(folder)
        chosen = found.only(listed(only)) if only else found
        own = listed(server) if server else []
        written = lookup.write(chosen, out, about.read_text() if about else "", features, own)
    except (TableError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    size = f"{len(written.tasks)} data sets x {len(written.configurations)} configurations"
    Console().print(f"{out}: {size}. {written.gaps}", soft_wrap=True, highlight=False, markup=False)


def _names(text: str) -> list[str]:
    """The recommenders that are named, each once; `all` stands for the built-in ones."""
    from nni_hyperfd.recommenders import NAMES

    named = ((name,) if name != "all" else NAMES for name in listed(text))
    return list(dict.fromkeys(itertools.chain.from_iterable(named)))


def _number(option: str, text: str, least: int) -> int:
    """The whole number that an option was given."""
    if not text.isdecimal() or int(text) < least:
        raise typer.BadParameter(f"{option} takes whole numbers, {least} or greater, not {text!r}")
    return int(text)
