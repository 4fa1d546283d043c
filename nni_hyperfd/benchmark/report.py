"""A benchmark's results: a CSV per run, a summary with paired differences, and a figure."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from nni_hyperfd.benchmark.protocol import Outcome, Protocol

REFERENCE = "mean_rank"
MEASURES = ("rank_percent", "first_half", "second_half", "gain", "ndcg", "regret", "seconds")


@dataclass(frozen=True)
class Run:
    """One recommender's way through one table with one seed. missing: results that the table does not have."""

    table: str
    recommender: str
    seed: int
    protocol: Protocol
    outcomes: list[Outcome]
    seconds: float
    missing: int = 0

    def measures(self) -> dict[str, float]:
        """By `MEASURES`: Rank% after the last pick is a mean over all tasks, over the first half of them (with the
        middle one) and over the others; gain is a sum over the tasks, NDCG and regret are means."""
        half = (len(self.outcomes) + 1) // 2
        final = [outcome.rank_percent[-1] for outcome in self.outcomes]
        return {
            "rank_percent": float(np.mean(final)),
            "first_half": float(np.mean(final[:half])),
            "second_half": float(np.mean(final[half:])) if final[half:] else float("nan"),
            "gain": float(np.sum([outcome.gain for outcome in self.outcomes])),
            "ndcg": float(np.mean([outcome.ndcg for outcome in self.outcomes])),
            "regret": float(np.mean([outcome.regret for outcome in self.outcomes])),
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its standard error (NaN for a single seed)."""

    mean: float
    error: float

    @classmethod
    def of(cls, values: list[float]) -> Estimate:
        from_first = np.subtract(values, values[:1])  # equal values have no spread, not one of the last digit
        error = np.std(from_first, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        return cls(float(np.mean(values)), float(error))

    def __str__(self) -> str:
        return f"{self.mean:.3g} ± {self.error:.2g}"


@dataclass(frozen=True)
class Summary:
    """One recommender on one table with one budget, over all its seeds.

    measures: by `MEASURES`. differences: the same, paired by seed, minus those of the reference; empty when it has not
    been run. missing: results that the table does not have.
    """

    table: str
    budget: int
    recommender: str
    measures: dict[str, Estimate]
    differences: dict[str, Estimate]
    missing: int = 0


@contextmanager
def runs_csv(path: Path, append: bool = False) -> Iterator[Callable[[Run], None]]:
    """Within the block, what it gives writes one line per run: what was run, and what came out.

    Each line is on disk at once, so that a benchmark that is stopped leaves what it has. append: after the lines of a
    file that is there.
    """
    columns = ("table", "missing", "recommender", "seed", *(field.name for field in fields(Protocol)), *MEASURES)
    with path.open("a" if append else "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if not append:
            writer.writeheader()

        def write(run: Run) -> None:
            reveal = "all" if run.protocol.reveal is None else run.protocol.reveal
            what = {**asdict(run.protocol), "reveal": reveal}
            names = {"table": run.table, "missing": run.missing, "recommender": run.recommender, "seed": run.seed}
            row = {**names, **what, **run.measures()}
            writer.writerow(row)
            file.flush()

        yield write


def summarised(runs: Iterable[Run], reference: str = REFERENCE) -> list[Summary]:
    """In the order in which table, budget and recommender first occur; differences are to the `reference`."""
    groups: dict[tuple[str, int, str], dict[int, dict[str, float]]] = {}
    missing: dict[str, int] = {}
    for run in runs:
        groups.setdefault((run.table, run.protocol.budget, run.recommender), {})[run.seed] = run.measures()
        missing[run.table] = run.missing
    result = []
    for (table, budget, recommender), own in groups.items():
        theirs = groups.get((table, budget, reference), {})
        paired = [(own[seed], theirs[seed]) for seed in own if seed in theirs]
        measures = {name: Estimate.of([values[name] for values in own.values()]) for name in MEASURES}
        differences = {name: Estimate.of([a[name] - b[name] for a, b in paired]) for name in MEASURES if paired}
        result.append(Summary(table, budget, recommender, measures, differences, missing[table]))
    return result


def write_summary(summaries: list[Summary], path: Path, reference: str = REFERENCE) -> None:
    """One line per table, budget, recommender and measure: mean and standard error, its own and of the difference."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        difference = f"minus_{reference}"
        what = ["table", "missing", "budget", "recommender", "measure"]
        writer.writerow([*what, "mean", "se", difference, f"{difference}_se"])
        for one in summaries:
            for name, estimate in one.measures.items():
                apart = one.differences.get(name, Estimate(np.nan, np.nan))
                numbers = [estimate.mean, estimate.error, apart.mean, apart.error]
                writer.writerow([one.table, one.missing, one.budget, one.recommender, name, *numbers])


def draw(summaries: list[Summary], path: Path) -> None:
    """Rank% against the budget, a panel per table, a line per recommender, standard errors shaded."""
    from matplotlib.figure import Figure

    tables, names = (list(dict.fromkeys(getattr(one, what) for one in summaries)) for what in ("table", "recommender"))
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
        # Logarithmic: where the good ones differ, random search is ten times as far away.
        panel.set_yscale("log", subs=[2, 5])
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter("{x:g}")
        panel.set(title=f"{table}{gaps}", xlabel="budget", ylabel="Rank%", xticks=budgets)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=150)
