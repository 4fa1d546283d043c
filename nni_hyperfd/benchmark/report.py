"""Results of a benchmark: means with standard errors over seeds and over data sets, paired differences, a figure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import TypeAlias

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column
from rich.table import Table as Printed

from nni_hyperfd.benchmark.protocol import Protocol
from nni_hyperfd.benchmark.results import FILE, RecommenderRun
from nni_hyperfd.benchmark.tables import Table
from nni_hyperfd.files import write_json

REFERENCE = "mean_rank"
"""The recommender that the others are compared with by default."""
MARKS = (1, 2, 4, 8, 16)
"""Numbers of picks after which Rank% is reported, as far as the budget goes."""
Values: TypeAlias = Mapping[int, Mapping[str, float]]
"""A measure by seed and data set."""


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard errors, each NaN for a single value.

    Attributes:
        mean: over seeds of the means over data sets.
        error: standard error over seeds: how far other seeds, that is orders and candidates, might move the mean.
        over_data_sets: standard error over data sets, each with its mean over the seeds: how far other data sets might.
    """

    mean: float
    error: float
    over_data_sets: float = math.nan

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Estimate the mean of independent values."""
        from_first = np.subtract(values, values[:1])  # equal values have no spread, not one of the last digit
        error = np.std(from_first, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        return cls(float(np.mean(values)) if len(values) else math.nan, float(error))

    @classmethod
    def of_runs(cls, values: Values, total: bool = False) -> Estimate:
        """Estimate the mean over runs of a measure's mean over a run's data sets, or of its sum.

        Args:
            values: by seed and data set; a run without any does not count.
            total: whether the sum over a run's data sets is meant.
        """
        runs = [own for own in values.values() if own]
        if not runs:
            return cls(math.nan, math.nan)
        by_data_set: dict[str, list[float]] = {}
        for own in runs:
            for name, value in own.items():
                by_data_set.setdefault(name, []).append(value)
        size = fmean(map(len, runs)) if total else 1.0
        over_seeds = cls.of([sum(own.values()) if total else fmean(own.values()) for own in runs])
        apart = cls.of([fmean(own) for own in by_data_set.values()]).error
        return cls(over_seeds.mean, over_seeds.error, size * apart)

    def __str__(self) -> str:
        mean = round(self.mean, 9)  # what rounding leaves of differences that cancel is no figure
        return f"{mean:.3g} ± {self.error:.2g}"

    @property
    def both(self) -> str:
        """The mean with both errors, over seeds first."""
        return f"{self.mean:.2f} ±{self.error:.2f} ±{self.over_data_sets:.2f}"


def marks(protocol: Protocol) -> list[int]:
    """Numbers of picks after which Rank% is reported, beside the last one."""
    return [mark for mark in MARKS if mark <= protocol.budget]


def measures_of(run: RecommenderRun) -> dict[str, dict[str, float]]:
    """The measures of a run, each by data set.

    `rank_percent` is Rank% (%) of the best pick, `first_half` and `second_half` are the same on the first half of the
    tasks (with the middle one) and on the others; `rank_percent_4` is that of the best of the first 4 picks, or of
    fewer where there were no more candidates. `gain` is in the table's unit, `ndcg` and `regret` are in [0, 1].
    `seconds` are those of the whole run, learning included, `seconds_per_pick` the same divided by its number of picks;
    they stand under the name of the table.
    """
    last = {one.task: one.rank_percent[-1] for one in run.outcomes}
    half = (len(last) + 1) // 2
    result = {
        "rank_percent": last,
        "first_half": dict(list(last.items())[:half]),
        "second_half": dict(list(last.items())[half:]),
    }
    for mark in marks(run.protocol):
        result[f"rank_percent_{mark}"] = {one.task: one.rank_percent[:mark][-1] for one in run.outcomes}
    result |= {name: {one.task: getattr(one, name) for one in run.outcomes} for name in ("gain", "ndcg", "regret")}
    picks = sum(len(one.picks) for one in run.outcomes)
    return result | {"seconds": {run.table: run.seconds}, "seconds_per_pick": {run.table: run.seconds / picks}}


def means_of(run: RecommenderRun) -> dict[str, float]:
    """The measures of a run over all its data sets."""
    return {name: Estimate.of_runs({run.seed: own}, name == "gain").mean for name, own in measures_of(run).items()}


@dataclass(frozen=True)
class Summary:
    """One recommender on one table with one protocol, over all its seeds.

    Attributes:
        table: name of the table.
        protocol: how the runs went.
        recommender: name of the recommender.
        seeds: number of runs.
        measures: by the names of `measures_of`; gain is the sum over the data sets of a run, the others are means.
        differences: the same minus those of the reference, paired by seed and data set; empty when the reference has
            not been run.
        missing: number of results that the table does not have.
    """

    table: str
    protocol: Protocol
    recommender: str
    seeds: int
    measures: dict[str, Estimate]
    differences: dict[str, Estimate]
    missing: int = 0


def summarised(runs: Iterable[RecommenderRun], reference: str = REFERENCE) -> list[Summary]:
    """Summarise runs by table, protocol and recommender, in the order in which these first occur.

    Args:
        runs: one per table, protocol, recommender and seed.
        reference: the recommender that the differences are to.
    """
    groups: dict[tuple[str, Protocol, str], list[RecommenderRun]] = {}
    for run in runs:
        groups.setdefault((run.table, run.protocol, run.recommender), []).append(run)
    result = []
    for (table, protocol, recommender), own in groups.items():
        values = _by_measure(own)
        theirs = _by_measure(groups.get((table, protocol, reference), []))
        apart = {name: _minus(values[name], theirs[name]) for name in theirs}
        paired = any(apart.get("rank_percent", {}).values())
        result.append(
            Summary(
                table=table,
                protocol=protocol,
                recommender=recommender,
                seeds=len(own),
                measures={name: Estimate.of_runs(found, name == "gain") for name, found in values.items()},
                differences={n: Estimate.of_runs(found, n == "gain") for n, found in apart.items() if paired},
                missing=own[0].missing,
            )
        )
    return result


def _by_measure(runs: Iterable[RecommenderRun]) -> dict[str, dict[int, dict[str, float]]]:
    """The measures of a recommender's runs by name, seed and data set."""
    result: dict[str, dict[int, dict[str, float]]] = {}
    for run in runs:
        for name, values in measures_of(run).items():
            result.setdefault(name, {})[run.seed] = values
    return result


def _minus(ours: Values, theirs: Values) -> dict[int, dict[str, float]]:
    """Differences where both have a value."""
    return {
        seed: {name: own[name] - theirs[seed][name] for name in own if name in theirs[seed]}
        for seed, own in ours.items()
        if seed in theirs
    }


def publish(
    runs: Sequence[RecommenderRun], tables: Sequence[Table], reference: str, command: str, out: Path, console: Console
) -> None:
    """Write summary.json and, for several budgets, the figure; print tables for each table and protocol.

    Args:
        runs: all of them.
        tables: that they were on.
        reference: the recommender that the differences are to.
        command: the command line that has made them.
        out: folder of the results.
        console: where to print.
    """
    summaries = summarised(runs, reference)
    _write_summary(summaries, tables, reference, command, out / "summary.json")
    groups: dict[tuple[str, Protocol], list[Summary]] = {}
    for one in summaries:
        groups.setdefault((one.table, one.protocol), []).append(one)
    if len(groups) > len(tables):
        draw(summaries, out / "rank_against_budget.png")
    for (name, protocol), own in groups.items():
        title = f"{name}, budget {protocol.budget}, {own[0].seeds} seeds: {protocol}; ± over seeds, ± over data sets"
        console.print(title, soft_wrap=True, highlight=False, markup=False)
        console.print(printed(own, reference), printed_curve(own))
    for table in tables:
        if table.gaps:
            console.print(f"{table.name}: {table.gaps}")
    console.print(f"Per task: {out / FILE}; means, differences and errors: {out / 'summary.json'}")


def _write_summary(
    summaries: Sequence[Summary], tables: Sequence[Table], reference: str, command: str, path: Path
) -> None:
    """Write all means, differences and errors, with what they were made by."""
    content = {
        "command": command,
        "versions": {name: version(name) for name in ("nni-hyperfd", "torch", "numpy", "scipy")},
        "tables": {table.name: {"digest": table.digest, "missing": table.missing} for table in tables},
        "reference": reference,
        "results": [
            {
                "table": one.table,
                **asdict(one.protocol),
                "recommender": one.recommender,
                "seeds": one.seeds,
                "measures": {name: _as_json(one, name, reference) for name in one.measures},
            }
            for one in summaries
        ],
    }
    write_json(path, content)


def _as_json(summary: Summary, name: str, reference: str) -> dict[str, float | None]:
    """A measure with its errors, and the difference with its errors; None for what is not known."""
    found = {"": summary.measures[name], f"minus_{reference}": summary.differences.get(name)}
    result: dict[str, float | None] = {}
    for prefix, estimate in found.items():
        if estimate is not None:
            numbers = {"mean": estimate.mean, "se_over_seeds": estimate.error}
            numbers["se_over_data_sets"] = estimate.over_data_sets
            for key, value in numbers.items():
                result["_".join(filter(None, (prefix, key)))] = value if math.isfinite(value) else None
    return result


def printed(summaries: Sequence[Summary], reference: str = REFERENCE) -> Printed:
    """Rank% and its difference to the reference, in 80 columns; summary.json has the rest.

    Args:
        summaries: of recommenders with one table and protocol.
        reference: the recommender that the differences are to.
    """
    columns = ("recommender", "Rank%", f"- {reference}", "1st half -", "2nd half -")
    result = _empty(columns)
    for one in summaries:
        apart = [one.differences[name] for name in ("rank_percent", "first_half", "second_half") if one.differences]
        halves = [f"{estimate.mean:.1f} ±{estimate.error:.1f}" for estimate in apart[1:]]
        result.add_row(one.recommender, one.measures["rank_percent"].both, *(e.both for e in apart[:1]), *halves)
    return result


def printed_curve(summaries: Sequence[Summary]) -> Printed:
    """Rank% of the best of the first picks of each task, with standard errors over seeds, and the time they took."""
    numbers = marks(summaries[0].protocol)
    columns = ("recommender", *map(str, numbers), "s/pick", "s/run")
    result = _empty(columns, "Rank% of the best of so many first picks")
    for one in summaries:
        found = [one.measures[f"rank_percent_{mark}"] for mark in numbers]
        ranks = [f"{estimate.mean:.1f} ±{estimate.error:.1f}" for estimate in found]
        seconds = [f"{one.measures[name].mean:.2g}" for name in ("seconds_per_pick", "seconds")]
        result.add_row(one.recommender, *ranks, *seconds)
    return result


def _empty(columns: Iterable[str], title: str | None = None) -> Printed:
    """A table to be printed."""
    return Printed(*(Column(name, no_wrap=True) for name in columns), title=title, box=SIMPLE, padding=(0, 1, 0, 0))


def draw(summaries: Sequence[Summary], path: Path) -> None:
    """Draw Rank% against the budget: a panel per table, a line per recommender, standard errors over seeds shaded."""
    from matplotlib.figure import Figure

    tables = list(dict.fromkeys(one.table for one in summaries))
    names = list(dict.fromkeys(one.recommender for one in summaries))
    figure = Figure(figsize=(4.5 * len(tables) + 2, 4.5), layout="constrained")
    panels = figure.subplots(1, len(tables), squeeze=False)[0]
    for panel, table in zip(panels, tables, strict=True):
        for place, name in enumerate(names):
            own = [one for one in summaries if (one.table, one.recommender) == (table, name)]
            gaps = f", {own[0].missing} results missing" if own and own[0].missing else ""
            budgets = [one.protocol.budget for one in own]
            mean = np.array([one.measures["rank_percent"].mean for one in own])
            error = np.nan_to_num([one.measures["rank_percent"].error for one in own])
            # matplotlib has ten colours, C0 to C9.
            style = {"color": f"C{place % 10}", "linestyle": "-" if place < 10 else "--"}
            panel.plot(budgets, mean, marker=".", label=name, **style)
            panel.fill_between(budgets, mean - error, mean + error, alpha=0.15, color=style["color"])
        # Logarithmic: the good recommenders differ by little, and random search is ten times as far away.
        panel.set_yscale("log", subs=[2, 5])
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter("{x:g}")
        panel.set(title=f"{table}{gaps}\n{own[0].protocol}", xlabel="budget", ylabel="Rank%", xticks=budgets)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=150)
