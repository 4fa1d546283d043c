"""Results of a benchmark: a CSV row per run, a summary with paired differences, and a figure."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from nni_hyperfd.benchmark.protocol import Outcome, Protocol
from nni_hyperfd.files import atomic

REFERENCE = "mean_rank"
"""The recommender that the others are compared with by default."""
MEASURES = ("rank_percent", "first_half", "second_half", "gain", "ndcg", "regret", "seconds")
COLUMNS = ("table", "missing", "recommender", "seed", *(field.name for field in fields(Protocol)), *MEASURES)
"""Columns of a file of runs."""


@dataclass(frozen=True)
class RecommenderRun:
    """One recommender's run over the tasks of one table with one seed.

    Attributes:
        table: name of the table.
        recommender: name of the recommender.
        seed: of the run.
        protocol: how the run went.
        measures: by `MEASURES`. Rank% (%, after the last pick) is the mean over all tasks, over the first half of them
            (with the middle one) and over the others; gain is the sum over the tasks, in the table's unit; NDCG and
            regret are means in [0, 1]; seconds are those of the whole run.
        missing: number of results that the table does not have.
    """

    table: str
    recommender: str
    seed: int
    protocol: Protocol
    measures: dict[str, float]
    missing: int = 0

    @classmethod
    def of(
        cls,
        table: str,
        recommender: str,
        seed: int,
        protocol: Protocol,
        outcomes: Sequence[Outcome],
        seconds: float,
        missing: int = 0,
    ) -> RecommenderRun:
        """Summarise the outcomes of a run's scored tasks, in their order."""
        half = (len(outcomes) + 1) // 2
        final = [outcome.rank_percent[-1] for outcome in outcomes]
        measures = {
            "rank_percent": float(np.mean(final)),
            "first_half": float(np.mean(final[:half])),
            "second_half": float(np.mean(final[half:])) if final[half:] else float("nan"),
            "gain": float(np.sum([outcome.gain for outcome in outcomes])),
            "ndcg": float(np.mean([outcome.ndcg for outcome in outcomes])),
            "regret": float(np.mean([outcome.regret for outcome in outcomes])),
            "seconds": seconds,
        }
        return cls(table, recommender, seed, protocol, measures, missing)

    @property
    def row(self) -> dict[str, object]:
        """The run as a row of `COLUMNS`."""
        reveal = "all" if self.protocol.reveal is None else self.protocol.reveal
        names = {"table": self.table, "missing": self.missing, "recommender": self.recommender, "seed": self.seed}
        return {**names, **asdict(self.protocol), "reveal": reveal, **self.measures}


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error, which is NaN for a single value."""

    mean: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Estimate the mean of independent values."""
        from_first = np.subtract(values, values[:1])  # equal values have no spread, not one of the last digit
        error = np.std(from_first, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        return cls(float(np.mean(values)), float(error))

    def __str__(self) -> str:
        return f"{self.mean:.3g} ± {self.error:.2g}"


@dataclass(frozen=True)
class Summary:
    """One recommender on one table with one budget, over all its seeds.

    Attributes:
        table: name of the table.
        budget: picks per task.
        recommender: name of the recommender.
        measures: by `MEASURES`, means over the seeds.
        differences: the same minus those of the reference, paired by seed; empty when the reference has not been run.
        missing: number of results that the table does not have.
    """

    table: str
    budget: int
    recommender: str
    measures: dict[str, Estimate]
    differences: dict[str, Estimate]
    missing: int = 0


def summarised(runs: Iterable[RecommenderRun], reference: str = REFERENCE) -> list[Summary]:
    """Summarise runs by table, budget and recommender, in the order in which these first occur.

    Args:
        runs: one per table, protocol, recommender and seed.
        reference: the recommender that the differences are to.
    """
    groups: dict[tuple[str, int, str], dict[int, dict[str, float]]] = {}
    missing: dict[str, int] = {}
    for run in runs:
        groups.setdefault((run.table, run.protocol.budget, run.recommender), {})[run.seed] = run.measures
        missing[run.table] = run.missing
    result = []
    for (table, budget, recommender), own in groups.items():
        theirs = groups.get((table, budget, reference), {})
        paired = [(own[seed], theirs[seed]) for seed in own if seed in theirs]
        measures = {name: Estimate.of([values[name] for values in own.values()]) for name in MEASURES}
        differences = {name: Estimate.of([a[name] - b[name] for a, b in paired]) for name in MEASURES if paired}
        result.append(Summary(table, budget, recommender, measures, differences, missing[table]))
    return result


def write_summary(summaries: Sequence[Summary], path: Path, reference: str = REFERENCE) -> None:
    """Write a CSV row per table, budget, recommender and measure.

    A row has the mean and its standard error, of the measure and of its difference to the reference.
    """
    with atomic(path) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file)
        difference = f"minus_{reference}"
        what = ["table", "missing", "budget", "recommender", "measure"]
        writer.writerow([*what, "mean", "se", difference, f"{difference}_se"])
        for one in summaries:
            for name, estimate in one.measures.items():
                apart = one.differences.get(name, Estimate(np.nan, np.nan))
                numbers = [estimate.mean, estimate.error, apart.mean, apart.error]
                writer.writerow([one.table, one.missing, one.budget, one.recommender, name, *numbers])


def draw(summaries: Sequence[Summary], path: Path) -> None:
    """Draw Rank% against the budget: a panel per table, a line per recommender, standard errors shaded."""
    from matplotlib.figure import Figure

    tables = list(dict.fromkeys(one.table for one in summaries))
    names = list(dict.fromkeys(one.recommender for one in summaries))
    figure = Figure(figsize=(4.5 * len(tables) + 2, 4.5), layout="constrained")
    panels = figure.subplots(1, len(tables), squeeze=False)[0]
    for panel, table in zip(panels, tables, strict=True):
        for place, name in enumerate(names):
            own = [one for one in summaries if (one.table, one.recommender) == (table, name)]
            gaps = f", {own[0].missing} results missing" if own and own[0].missing else ""
            budgets = [one.budget for one in own]
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
        panel.set(title=f"{table}{gaps}", xlabel="budget", ylabel="Rank%", xticks=budgets)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=150)
