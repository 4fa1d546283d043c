"""Whether a table's configurations differ by more than chance, and rank alike on both splits and across data sets.

    python -m nni_hyperfd.benchmark.spread TABLE [--out FOLDER]

TABLE was made by `hyperfd table`. The program writes spread.csv (a row per data set), between.csv (rank correlations
between data sets), spread.txt (what is printed) and spread.png with the paper's Figures 7 (AP of all configurations), 8
(validation against test) and 9 (between data sets), for the test split. The spread is the standard deviation over
configurations with the first seed; the spread between seeds is pooled over the configurations that were repeated. The
columns `real` have the spread of configurations without the variance between seeds. Data sets are called flat where
that is below the spread between seeds on validation, so that a rank there tells little; they are named, drawn below a
line, and left out of the summary of rank correlations between data sets.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from nni_hyperfd.benchmark import lookup, measured, tables
from nni_hyperfd.benchmark.measured import START, MeasuredTrial
from nni_hyperfd.files import atomic, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

SPLITS = ("val", "test")
ENOUGH = 2.0
"""Ratio of the spread of configurations to that of seeds which counts as more than chance."""
_DARK = 0.6
"""Absolute correlation above which a cell of the matrix is so dark that its text is white."""


@dataclass(frozen=True)
class Spread:
    """One data set; NaN for what is not known. AP@50 in [0, 1]; standard deviations of it.

    Attributes:
        domain: name of the data set.
        measured: number of configurations with a result of the first seed.
        failed: number of those that failed with the first seed.
        repeated: number of configurations with results of several seeds.
        before_test: test AP of the detector that all trials start from.
        median_test: median test AP of the configurations.
        best_test: highest test AP of a configuration.
        configurations_val: standard deviation over configurations, on the validation split.
        configurations_test: the same on the test split.
        seeds_val: pooled standard deviation over seeds, on the validation split.
        seeds_test: the same on the test split.
        ratio_val: configurations_val / seeds_val.
        ratio_test: configurations_test / seeds_test.
        real_val: sqrt(configurations_val^2 - seeds_val^2), at least 0.
        real_test: the same on the test split.
        flat: whether real_val is below seeds_val; False where one of them is not known.
        agreement: Spearman's correlation of validation and test AP over the configurations.
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
    flat: bool
    agreement: float


def spread_of(domain: str, trials: Sequence[MeasuredTrial], seed: int) -> Spread:
    """Summarise the trials of one data set; `seed` is the first one."""
    own = [trial for trial in trials if trial.domain == domain]
    tuned = [trial for trial in own if trial.configuration != START]
    first = [trial for trial in tuned if trial.seed == seed and not trial.failed]
    before = [trial.test for trial in own if trial.configuration == START and not trial.failed]
    values = {split: np.array([getattr(trial, split) for trial in first]) for split in SPLITS}
    found: dict[str, float] = {}
    runs: dict[str, list[MeasuredTrial]] = defaultdict(list)
    for trial in tuned:
        if not trial.failed:
            runs[trial.configuration].append(trial)
    for split in SPLITS:
        apart = float(np.std(values[split], ddof=1)) if len(first) > 1 else np.nan
        within = pooled_deviation([[getattr(trial, split) for trial in repeats] for repeats in runs.values()])
        found |= {f"configurations_{split}": apart, f"seeds_{split}": within}
        found[f"ratio_{split}"] = apart / within if within > 0 else np.nan
        found[f"real_{split}"] = float(np.sqrt(max(apart**2 - within**2, 0.0))) if within >= 0 else np.nan
    return Spread(
        domain=domain,
        measured=len(first),
        failed=sum(trial.seed == seed and trial.failed for trial in tuned),
        repeated=sum(len(repeats) > 1 for repeats in runs.values()),
        before_test=before[0] if before else np.nan,
        median_test=float(np.median(values["test"])) if first else np.nan,
        best_test=float(values["test"].max()) if first else np.nan,
        flat=found["real_val"] < found["seeds_val"],
        agreement=rank_correlation(values["val"], values["test"]),
        **found,
    )


def pooled_deviation(groups: Sequence[Sequence[float]]) -> float:
    """Square root of the mean variance of groups, weighted by degrees of freedom; NaN if no group has two values."""
    freedom = sum(len(group) - 1 for group in groups if len(group) > 1)
    squares = sum(float(np.var(group)) * len(group) for group in groups if len(group) > 1)
    return float(np.sqrt(squares / freedom)) if freedom else np.nan


def rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Spearman's correlation of (n,) and (n,), where both are finite; NaN for fewer than three or a constant side."""
    from scipy.stats import spearmanr

    known = np.isfinite(a) & np.isfinite(b)
    if known.sum() < 3 or np.ptp(a[known]) == 0 or np.ptp(b[known]) == 0:
        return np.nan
    return float(spearmanr(a[known], b[known]).statistic)


def between_data_sets(performance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank correlations (n, n) of n data sets' results (n, configurations), each over what both have in common."""
    return np.array([[rank_correlation(a, b) for b in performance] for a in performance])


def statement(spreads: Sequence[Spread], between: NDArray[np.float64]) -> list[str]:
    """The findings, in sentences; between: (n, n) rank correlations of the data sets."""
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
    flat = np.array([one.flat for one in spreads], dtype=bool)
    if flat.any():
        named = ", ".join(f"{one.domain} ({one.real_val:.3f} and {one.seeds_val:.3f})" for one in spreads if one.flat)
        lines.append(f"Flat data sets, where configurations differ less than seeds do on validation (AP): {named}.")
    apart = between[~flat[:, None] & ~flat & ~np.eye(len(between), dtype=bool)]
    mean, least, greatest = (_told(summary, apart) for summary in (np.mean, np.min, np.max))
    without = ", without flat ones" if flat.any() else ""
    lines.append(f"Rank correlation of two data sets (test{without}): mean {mean}, least {least}, greatest {greatest}.")
    return lines


def _told(summary: Callable[[NDArray[np.float64]], Any], values: Iterable[float]) -> str:
    """A summary of the values that are finite."""
    every = np.array(list(values))
    known = every[np.isfinite(every)]
    return f"{summary(known):.2f}" if len(known) else "unknown"


def draw(
    spreads: Sequence[Spread],
    performance: NDArray[np.float64],
    between: NDArray[np.float64],
    title: str,
    path: Path,
) -> None:
    """Draw three panels: test AP of all configurations, validation against test, and between data sets.

    Data sets are ordered by their median AP, those without a result last; flat ones are below the others.

    Args:
        spreads: of n data sets.
        performance: (n, configurations), test AP.
        between: (n, n), rank correlations.
        title: of the figure.
        path: of the PNG file.
    """
    from matplotlib.figure import Figure

    medians = [np.inf if np.isnan(one.median_test) else one.median_test for one in spreads]
    order = np.lexsort((medians, [not one.flat for one in spreads]))
    spreads, performance, between = [spreads[i] for i in order], performance[order], between[np.ix_(order, order)]
    names, places = [f"{one.domain} (flat)" if one.flat else one.domain for one in spreads], np.arange(len(spreads))
    figure = Figure(figsize=(6 + 1.1 * len(names), 4 + 0.25 * len(names)), layout="constrained")
    ap, agreement, matrix = figure.subplots(1, 3, width_ratios=(1.2, 0.6, 1.2))
    figure.suptitle(title)
    _draw_ap(ap, spreads, performance, names)
    agreement.barh(places, np.nan_to_num([one.agreement for one in spreads]), color="C0")
    agreement.set(
        title="Rank correlation\nvalidation, test", yticks=places, yticklabels=[], ylim=ap.get_ylim(), xlim=(-1, 1)
    )
    agreement.axvline(0, color="black", linewidth=0.8)
    image = _draw_matrix(matrix, between, names)
    if 0 < (flat := sum(one.flat for one in spreads)) < len(spreads):
        for panel in (ap, agreement, matrix):
            panel.axhline(flat - 0.5, color="grey", linestyle="--", linewidth=0.8)
    figure.colorbar(image, ax=matrix, shrink=0.6)
    figure.savefig(path, dpi=120)


def _draw_ap(panel: Axes, spreads: Sequence[Spread], performance: NDArray[np.float64], names: Sequence[str]) -> None:
    """A box per data set, with the deviation between seeds and the AP before fine-tuning."""
    places = np.arange(len(spreads))
    panel.boxplot(
        [row[np.isfinite(row)] for row in performance], positions=places, orientation="horizontal", whis=(0, 100)
    )
    panel.errorbar(
        [one.median_test for one in spreads],
        places + 0.38,
        xerr=np.nan_to_num([one.seeds_test for one in spreads]),
        fmt="none",
        color="C1",
        capsize=2,
        label="± a standard deviation between seeds",
    )
    panel.plot([one.before_test for one in spreads], places, "kx", label="before fine-tuning")
    panel.set(title="AP@50 on test, all configurations", yticks=places, yticklabels=names, xlim=(-0.02, 1.02))
    panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), fontsize="small")


def _draw_matrix(panel: Axes, between: NDArray[np.float64], names: Sequence[str]) -> AxesImage:
    """The rank correlations as colours and numbers."""
    places = np.arange(len(names))
    image = panel.imshow(between, vmin=-1, vmax=1, cmap="RdBu")
    panel.set(title="Rank correlation between data sets, test", yticks=places, yticklabels=names)
    panel.set_xticks(places, names, rotation=90)
    for (row, column), value in np.ndenumerate(between):
        if row != column and np.isfinite(value):
            label, colour = f"{value:.2f}".replace("0.", "."), "white" if abs(value) > _DARK else "black"
            panel.text(column, row, label, ha="center", va="center", fontsize="x-small", color=colour)
    return image


def read(folder: Path) -> tuple[tables.Table, dict[str, Any], list[MeasuredTrial]]:
    """Read a table that `hyperfd table` made: the table, its `meta.json`, and its trials.

    Raises:
        TableError: it cannot be read, or has no trials with several seeds.
    """
    table, meta = tables.load(folder), tables.read_meta(folder)
    if "settings" not in meta:
        raise tables.TableError(f"{folder} has no trials with several seeds; name a table that hyperfd table made.")
    return table, meta, measured.read_trials(folder / lookup.TRIALS)


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of a table that `hyperfd table` made.", metavar="TABLE")],
    out: Annotated[Path, typer.Option(help="Folder for the CSVs and the figure.")] = Path("spread"),
) -> None:
    """Whether a table's configurations differ by more than chance; the paper's Figures 7 to 9 of it."""
    try:
        table, meta, trials = read(folder)
        out.mkdir(parents=True, exist_ok=True)
    except (tables.TableError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    seed = meta["settings"]["seed"]
    spreads = [spread_of(domain, trials, seed) for domain in table.tasks]
    performance = performance_on_test(table.tasks, trials, seed)
    between = between_data_sets(performance)

    with atomic(out / "spread.csv") as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Spread)])
        writer.writeheader()
        writer.writerows(map(asdict, spreads))
    with atomic(out / "between.csv") as partial, partial.open("w", newline="") as file:
        rows = [[domain, *row] for domain, row in zip(table.tasks, between.tolist(), strict=True)]
        csv.writer(file).writerows([["domain", *table.tasks], *rows])
    title = f"{table.name}: {len(table.tasks)} data sets, {len(table.configurations)} configurations. {table.gaps}"
    draw(spreads, performance, between, title.strip(), out / "spread.png")
    told = "\n".join([*statement(spreads, between), table.gaps or "No result is missing."])
    write_text(out / "spread.txt", told + "\n")
    Console().print(told, highlight=False, markup=False)


def performance_on_test(domains: Sequence[str], trials: Sequence[MeasuredTrial], seed: int) -> NDArray[np.float64]:
    """Test AP with one seed, (data sets, configurations), NaN where there is none."""
    names = dict.fromkeys(trial.configuration for trial in trials if trial.configuration != START)
    known = {(trial.domain, trial.configuration): trial.test for trial in trials if trial.seed == seed}
    return np.array([[known.get((domain, name), np.nan) for name in names] for domain in domains])


if __name__ == "__main__":
    typer.run(main)
