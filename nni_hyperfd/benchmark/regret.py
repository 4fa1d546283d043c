"""Regret in AP of recommenders' picks, beside what another seed changes.

    python -m nni_hyperfd.benchmark.regret TABLE RUNS [--out FOLDER]

TABLE was made by `hyperfd table`, RUNS is the folder that `hyperfd benchmark TABLE --out RUNS` has filled. Rank% counts
configurations, and so calls a step between two of equal worth as large as any. Regret is what a user loses: the mean AP
over seeds of the best configuration of the table, minus that of the pick that he keeps, which is the one with the best
validation AP among the results he was told (those of the first seed). A regret below the spread between seeds is worth
no more than luck. Flat data sets (see `spread`) are named and summarised apart.

The program writes regret.csv, a row per data set, recommender and protocol, and prints the means.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table as Printed

from nni_hyperfd.benchmark import results, tables
from nni_hyperfd.benchmark.measured import MeasuredTrial
from nni_hyperfd.benchmark.report import Estimate
from nni_hyperfd.benchmark.results import RecommenderRun
from nni_hyperfd.benchmark.spread import Spread, read, spread_of
from nni_hyperfd.files import FolderError, RowFile, write_text


@dataclass(frozen=True)
class DataSetRegret:
    """A recommender on one data set with one protocol. AP@50 of the validation split, in [0, 1].

    Attributes:
        protocol: how the runs went, with the budget.
        recommender: name of the recommender.
        domain: name of the data set.
        flat: whether configurations differ less than seeds do, see `spread.Spread`.
        runs: number of runs.
        regret: mean over the runs.
        error: standard error of it; NaN for a single run.
        seeds: standard deviation between seeds; NaN where nothing was repeated.
        configurations: standard deviation between configurations, without that between seeds.
    """

    protocol: str
    recommender: str
    domain: str
    flat: bool
    runs: int
    regret: float
    error: float
    seeds: float
    configurations: float


def mean_over_seeds(
    domains: Sequence[str], configurations: Sequence[str], trials: Sequence[MeasuredTrial]
) -> NDArray[np.float64]:
    """Mean validation AP over the seeds that did not fail, (data sets, configurations), NaN where there is none."""
    known: dict[tuple[str, str], list[float]] = {}
    for trial in trials:
        if not trial.failed:
            known.setdefault((trial.domain, trial.configuration), []).append(trial.val)
    return np.array([[fmean(known.get((domain, name), [np.nan])) for name in configurations] for domain in domains])


def regret(expected: NDArray[np.float64], told: NDArray[np.float64], picks: Sequence[int]) -> float:
    """What the best configuration has in expectation over the pick that is kept.

    Args:
        expected: (n,), mean over seeds of all configurations; NaN = not measured.
        told: (n,), what was told of each configuration when it was picked.
        picks: indices, all of them measured; the first of those with the highest result is kept.
    """
    kept = picks[int(np.argmax(told[list(picks)]))]
    return float(np.nanmax(expected) - expected[kept])


def by_protocol(
    runs: Sequence[RecommenderRun], domains: Sequence[str], expected: NDArray[np.float64], told: NDArray[np.float64]
) -> dict[tuple[str, str], dict[int, dict[str, float]]]:
    """The regrets by protocol and recommender, each by seed and data set.

    Args:
        runs: on one table.
        domains: names of the table's data sets.
        expected: (data sets, configurations), see `regret`.
        told: (data sets, configurations), see `regret`.
    """
    found: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
    for run in runs:
        own = {}
        for one in run.outcomes:
            place = domains.index(one.task)
            own[one.task] = regret(expected[place], told[place], one.picks)
        named = f"{run.protocol}, budget {run.protocol.budget}"
        found.setdefault((named, run.recommender), {})[run.seed] = own
    return found


def by_data_set(
    found: Mapping[tuple[str, str], Mapping[int, Mapping[str, float]]], spreads: Sequence[Spread]
) -> Iterator[DataSetRegret]:
    """A row for each protocol, recommender and data set that was scored."""
    for (protocol, recommender), values in found.items():
        for one in spreads:
            own = [run[one.domain] for run in values.values() if one.domain in run]
            if own:
                estimate = Estimate.of(own)
                numbers = (len(own), estimate.mean, estimate.error, one.seeds_val, one.real_val)
                yield DataSetRegret(protocol, recommender, one.domain, one.flat, *numbers)


def printed(found: Mapping[tuple[str, str], Mapping[int, Mapping[str, float]]], spreads: Sequence[Spread]) -> Printed:
    """Mean regrets in hundredths of AP with both errors, without flat data sets and on these alone."""
    result = Printed(title="Regret in AP x 100; ± over seeds, ± over data sets", box=SIMPLE)
    for column in ("protocol", "recommender", "regret", "on flat data sets"):
        result.add_column(column, no_wrap=column != "protocol")
    flat = {one.domain for one in spreads if one.flat}
    for (protocol, recommender), values in found.items():
        parts = [
            Estimate.of_runs(
                {
                    seed: {name: 100 * value for name, value in run.items() if (name in flat) is wanted}
                    for seed, run in values.items()
                }
            )
            for wanted in (False, True)
        ]
        result.add_row(protocol, recommender, *("-" if np.isnan(part.mean) else part.both for part in parts))
    return result


def statement(spreads: Sequence[Spread]) -> str:
    """What another seed changes on these data sets, in one sentence, and which are flat."""
    known = [one.seeds_val for one in spreads if not one.flat and np.isfinite(one.seeds_val)]
    spread = f"{100 * float(np.sqrt(np.mean(np.square(known)))):.2f}" if known else "unknown"
    flat = ", ".join(one.domain for one in spreads if one.flat) or "none"
    return f"Standard deviation between seeds, AP x 100: {spread} without flat data sets. Flat: {flat}."


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of a table that `hyperfd table` made.", metavar="TABLE")],
    runs: Annotated[Path, typer.Argument(help="Folder that `hyperfd benchmark` has filled.", metavar="RUNS")],
    out: Annotated[Path, typer.Option(help="Folder for regret.csv.")] = Path("regret"),
) -> None:
    """Regret in AP of recommenders' picks, beside what another seed changes."""
    try:
        table, meta, trials = read(folder)
        every = results.read(RowFile(runs / results.FILE, results.COLUMNS))
        own = [run for run in every if run.table == table.name]
        if not own:
            raise tables.TableError(f"{runs} has no finished run on the table {table.name}.")
        out.mkdir(parents=True, exist_ok=True)
    except (tables.TableError, FolderError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    with np.load(folder / "performance.npz", allow_pickle=False) as arrays:
        names = arrays["configs"].tolist()
    found = by_protocol(own, table.tasks, mean_over_seeds(table.tasks, names, trials), table.performance)
    scored = {name for values in found.values() for run in values.values() for name in run}
    seed = meta["settings"]["seed"]
    spreads = [spread_of(domain, trials, seed) for domain in table.tasks if domain in scored]

    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(DataSetRegret)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, by_data_set(found, spreads)))
    write_text(out / "regret.csv", text.getvalue())
    console = Console()
    console.print(printed(found, spreads))
    console.print(statement(spreads), highlight=False, markup=False)


if __name__ == "__main__":
    typer.run(main)
