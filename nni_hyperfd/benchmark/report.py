"""A benchmark's results as a CSV per seed, a summary with paired differences, and a figure."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nni_hyperfd.benchmark.protocol import Outcome

REFERENCE = "mean_rank"
_MEASURES = ("rank_percent", "first_half", "second_half", "gain", "ndcg", "regret", "seconds")
COLUMNS = ("table", "recommender", "seed", *_MEASURES)


@dataclass(frozen=True)
class Run:
    """One recommender's way through one table with one seed."""

    table: str
    recommender: str
    seed: int
    outcomes: list[Outcome]
    seconds: float

    def rank_percent(self, picks: int | None = None) -> float:
        """Mean over the tasks of Rank% after `picks` picks (by default after the last)."""
        return float(np.mean([_after(outcome, picks) for outcome in self.outcomes]))

    def row(self) -> dict[str, str | int | float]:
        """What the CSV says of this run; gain is summed over the tasks, the rest are means."""
        half = (len(self.outcomes) + 1) // 2
        final = [outcome.rank_percent[-1] for outcome in self.outcomes]
        return {
            "table": self.table,
            "recommender": self.recommender,
            "seed": self.seed,
            "rank_percent": self.rank_percent(),
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
        error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        return cls(float(np.mean(values)), float(error))

    def __str__(self) -> str:
        return f"{self.mean:.3g} ± {self.error:.2g}"


def write_csv(runs: list[Run], path: Path) -> None:
    """One line per table, recommender and seed."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(run.row() for run in runs)


def estimate(runs: list[Run], column: str) -> Estimate:
    """A column's mean over these runs."""
    return Estimate.of([run.row()[column] for run in runs])


def paired_difference(runs: list[Run], reference: list[Run], column: str) -> Estimate:
    """Mean over the seeds that both have of runs - reference."""
    theirs = {run.seed: run.row()[column] for run in reference}
    return Estimate.of([run.row()[column] - theirs[run.seed] for run in runs if run.seed in theirs])


def draw(runs: list[Run], path: Path) -> None:
    """Rank% after 2 to the last pick, a panel per table, a line per recommender, standard errors shaded."""
    from matplotlib.figure import Figure

    table_names, names = (list(dict.fromkeys(getattr(run, what) for run in runs)) for what in ("table", "recommender"))
    figure = Figure(figsize=(5 * len(table_names), 4), layout="constrained")
    panels = figure.subplots(1, len(table_names), squeeze=False)[0]
    for panel, table in zip(panels, table_names, strict=True):
        for name in names:
            own = [run for run in runs if (run.table, run.recommender) == (table, name)]
            last = max(len(outcome.rank_percent) for run in own for outcome in run.outcomes)
            picks = np.arange(min(2, last), last + 1)
            points = [Estimate.of([run.rank_percent(k) for run in own]) for k in picks]
            mean = np.array([point.mean for point in points])
            error = np.nan_to_num([point.error for point in points])
            (line,) = panel.plot(picks, mean, marker=".", label=name)
            panel.fill_between(picks, mean - error, mean + error, alpha=0.15, color=line.get_color())
        panel.set(title=table, xlabel="picks", ylabel="Rank%", ylim=(0, None))
    panels[-1].legend(fontsize="small")
    figure.savefig(path, dpi=150)


def _after(outcome: Outcome, picks: int | None) -> float:
    return outcome.rank_percent[-1 if picks is None else min(picks, len(outcome.rank_percent)) - 1]
