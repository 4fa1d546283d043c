"""Whether a table's configurations differ by more than chance, and alike on validation and test and between data sets.

python -m nni_hyperfd.benchmark.spread TABLE [--out FOLDER]

TABLE was made by `hyperfd table`. Written are spread.csv (a row per data set), between.csv (rank correlations between
data sets), spread.txt (what is printed) and spread.png with the paper's Figures 7 (AP of all configurations), 8
(validation against test) and 9 (between data sets), for the test split. The spread is the standard deviation over
configurations with the first seed; that between seeds is pooled over the configurations that were repeated. `real`
takes the latter out of the former.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from nni_hyperfd.benchmark import lookup, measured, tables
from nni_hyperfd.benchmark.measured import START, Trial

SPLITS = ("val", "test")
ENOUGH = 2.0
"""Times the spread between seeds that configurations have to differ by."""
_DARK = 0.6
"""Correlation from which the matrix is so dark that letters are white."""


@dataclass(frozen=True)
class Spread:
    """One data set; NaN for what cannot be told. Standard deviations and rank correlations as the module says.

    measured: configurations with a result of the first seed. failed: those that failed. repeated: how many have results
    of several seeds. ratio: configurations / seeds. agreement: Spearman's correlation of validation and test AP.
    """

    domain: str
    measured: int
    failed: int
    repeated: int
    before_test: float
    median_test: float
    best_test: float
    configurations_val: float
    configurations_test: float
    seeds_val: float
    seeds_test: float
    ratio_val: float
    ratio_test: float
    real_val: float
    real_test: float
    agreement: float


def spread_of(domain: str, trials: Sequence[Trial], seed: int) -> Spread:
    """What one data set's trials say; `seed` is the first one."""
    own = [trial for trial in trials if trial.domain == domain]
    tuned = [trial for trial in own if trial.configuration != START]
    first = [trial for trial in tuned if trial.seed == seed and not trial.failed]
    before = [trial.test for trial in own if trial.configuration == START and not trial.failed]
    values = {split: np.array([getattr(trial, split) for trial in first]) for split in SPLITS}
    found = {}
    for split in SPLITS:
        runs = defaultdict(list)
        for trial in tuned:
            if not trial.failed:
                runs[trial.configuration].append(getattr(trial, split))
        between = float(np.std(values[split], ddof=1)) if len(first) > 1 else np.nan
        within = pooled_deviation(list(runs.values()))
        found |= {f"configurations_{split}": between, f"seeds_{split}": within}
        found[f"ratio_{split}"] = between / within if within > 0 else np.nan
        found[f"real_{split}"] = float(np.sqrt(max(between**2 - within**2, 0.0))) if within >= 0 else np.nan
    return Spread(
        domain=domain,
        measured=len(first),
        failed=sum(trial.seed == seed and trial.failed for trial in tuned),
        repeated=sum(len(results) > 1 for results in runs.values()),
        before_test=before[0] if before else np.nan,
        median_test=float(np.median(values["test"])) if first else np.nan,
        best_test=float(values["test"].max()) if first else np.nan,
        agreement=rank_correlation(values["val"], values["test"]),
        **found,
    )


def pooled_deviation(groups: Sequence[Sequence[float]]) -> float:
    """Square root of the groups' variances, weighed by their degrees of freedom; NaN if no group has two values."""
    freedom = sum(len(group) - 1 for group in groups if len(group) > 1)
    squares = sum(float(np.var(group)) * len(group) for group in groups if len(group) > 1)
    return float(np.sqrt(squares / freedom)) if freedom else np.nan


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's, over the places where both are known; NaN for fewer than three or where one side is constant."""
    from scipy.stats import spearmanr

    known = np.isfinite(a) & np.isfinite(b)
    if known.sum() < 3 or np.ptp(a[known]) == 0 or np.ptp(b[known]) == 0:
        return np.nan
    return float(spearmanr(a[known], b[known]).statistic)


def between_data_sets(performance: np.ndarray) -> np.ndarray:
    """(n, n) rank correlations of the rows of (n, configurations), each over what both have been measured with."""
    return np.array([[rank_correlation(a, b) for b in performance] for a in performance])


def statement(spreads: Sequence[Spread], between: np.ndarray) -> list[str]:
    """What was found, in sentences."""
    lines = []
    for split, name in zip(SPLITS, ("validation", "test"), strict=True):
        ratios = {one.domain: getattr(one, f"ratio_{split}") for one in spreads}
        known = {domain: ratio for domain, ratio in ratios.items() if np.isfinite(ratio)}
        small = [f"{domain} {ratio:.1f}" for domain, ratio in known.items() if ratio <= ENOUGH]
        but = f" (not on {', '.join(small)})" if small else ""
        lines.append(
            f"On {name}, configurations differ by more than {ENOUGH:g} times what seeds do on"
            f" {len(known) - len(small)} of {len(known)} data sets where both are known{but}; the median ratio is"
            f" {_told(np.median, known.values())}."
        )
    agreements = [one.agreement for one in spreads]
    middle, least = (_told(summary, agreements) for summary in (np.median, np.min))
    lines.append(f"Rank correlation of validation and test: median {middle}, least {least}.")
    apart = between[~np.eye(len(between), dtype=bool)]
    mean, least, greatest = (_told(summary, apart) for summary in (np.mean, np.min, np.max))
    lines.append(f"Rank correlation of two data sets (test): mean {mean}, least {least}, greatest {greatest}.")
    return lines


def _told(summary: Callable[[np.ndarray], float], values: Iterable[float]) -> str:
    values = np.array(list(values))
    known = values[np.isfinite(values)]
    return f"{summary(known):.2f}" if len(known) else "unknown"


def draw(spreads: Sequence[Spread], performance: np.ndarray, between: np.ndarray, title: str, path: Path) -> None:
    """Three panels for (data sets, configurations) of test AP: all of them, validation against test, between data sets.

    Data sets are ordered by their median AP, those without a result last.
    """
    from matplotlib.figure import Figure

    order = np.argsort([np.inf if np.isnan(one.median_test) else one.median_test for one in spreads], kind="stable")
    spreads, performance, between = [spreads[i] for i in order], performance[order], between[np.ix_(order, order)]
    names, places = [one.domain for one in spreads], np.arange(len(spreads))
    figure = Figure(figsize=(6 + 1.1 * len(names), 4 + 0.25 * len(names)), layout="constrained")
    ap, agreement, matrix = figure.subplots(1, 3, width_ratios=(1.2, 0.6, 1.2))
    figure.suptitle(title)

    ap.boxplot(
        [row[np.isfinite(row)] for row in performance], positions=places, orientation="horizontal", whis=(0, 100)
    )
    ap.errorbar(
        [one.median_test for one in spreads],
        places + 0.38,
        xerr=np.nan_to_num([one.seeds_test for one in spreads]),
        fmt="none",
        color="C1",
        capsize=2,
        label="± a standard deviation between seeds",
    )
    ap.plot([one.before_test for one in spreads], places, "kx", label="before fine-tuning")
    ap.set(title="AP@50 on test, all configurations", yticks=places, yticklabels=names, xlim=(-0.02, 1.02))
    ap.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), fontsize="small")

    agreement.barh(places, np.nan_to_num([one.agreement for one in spreads]), color="C0")
    agreement.set(
        title="Rank correlation\nvalidation, test", yticks=places, yticklabels=[], ylim=ap.get_ylim(), xlim=(-1, 1)
    )
    agreement.axvline(0, color="black", linewidth=0.8)

    image = matrix.imshow(between, vmin=-1, vmax=1, cmap="RdBu")
    matrix.set(title="Rank correlation between data sets, test", yticks=places, yticklabels=names)
    matrix.set_xticks(places, names, rotation=90)
    for (row, column), value in np.ndenumerate(between):
        if row != column and np.isfinite(value):
            label, colour = f"{value:.2f}".replace("0.", "."), "white" if abs(value) > _DARK else "black"
            matrix.text(column, row, label, ha="center", va="center", fontsize="x-small", color=colour)
    figure.colorbar(image, ax=matrix, shrink=0.6)
    figure.savefig(path, dpi=120)


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of a table that `hyperfd table` made.", metavar="TABLE")],
    out: Annotated[Path, typer.Option(help="Folder for the CSVs and the figure.")] = Path("spread"),
) -> None:
    """Whether a table's configurations differ by more than chance; the paper's Figures 7 to 9 of it."""
    try:
        table, meta = tables.load(folder), tables.read_meta(folder)
        if "settings" not in meta:
            raise tables.TableError(f"{folder} has no trials with several seeds; name a table that hyperfd table made.")
        trials = measured.read_trials(folder / lookup.TRIALS)
        out.mkdir(parents=True, exist_ok=True)
    except (tables.TableError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    seed = meta["settings"]["seed"]
    spreads = [spread_of(domain, trials, seed) for domain in table.tasks]
    performance = performance_on_test(table.tasks, trials, seed)
    between = between_data_sets(performance)

    with (out / "spread.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Spread)])
        writer.writeheader()
        writer.writerows(map(asdict, spreads))
    with (out / "between.csv").open("w", newline="") as file:
        rows = [[domain, *row] for domain, row in zip(table.tasks, between.tolist(), strict=True)]
        csv.writer(file).writerows([["domain", *table.tasks], *rows])
    title = f"{table.name}: {len(table.tasks)} data sets, {len(table.configurations)} configurations. {table.gaps}"
    draw(spreads, performance, between, title.strip(), out / "spread.png")
    told = "\n".join([*statement(spreads, between), table.gaps or "No result is missing."])
    (out / "spread.txt").write_text(told + "\n")
    Console().print(told, highlight=False, markup=False)


def performance_on_test(domains: Sequence[str], trials: Sequence[Trial], seed: int) -> np.ndarray:
    """(data sets, configurations) of test AP with the first seed, NaN where there is none."""
    names = dict.fromkeys(trial.configuration for trial in trials if trial.configuration != START)
    known = {trial[:2]: trial.test for trial in trials if trial.seed == seed}
    return np.array([[known.get((domain, name), np.nan) for name in names] for domain in domains])


if __name__ == "__main__":
    typer.run(main)
