"""The paper's tables and figures, a function each: from runs and measurements to CSVs, pictures and sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from nni_hyperfd.benchmark import spread
from nni_hyperfd.benchmark.measured import MeasuredTrial
from nni_hyperfd.benchmark.reproduce import comparison, figures
from nni_hyperfd.benchmark.reproduce.arms import ARMS, BASELINES, DEFAULT, FULL, unavailable
from nni_hyperfd.benchmark.reproduce.plan import BUDGET, Setting
from nni_hyperfd.benchmark.reproduce.warm_ups import warmed_extractor
from nni_hyperfd.benchmark.tables import Table

PERFORMANCE = {
    "Table 1": "The recommenders. Gain is the best pick's validation AP above that of as many random picks, in points,"
    " summed over the data sets; Rank% is the best pick's rank among the candidates. HyperFD (ResNet) has the mean of"
    " the detector's own features here. Mean rank, nearest tasks and the default preset are not in the paper.",
    "Table 2": "Continual learning: what HyperFD becomes when a part of it does not learn on.",
    "Table 3": "The transformation of old meta-features; the oracle has kept all images.",
    "Table 4": "The loss: without the triplets and Synaptic Intelligence, and without the latter.",
    "Table 5": "The extractor without one of its parts. NDCG is that of the warm-up on results held out. Without GWAP"
    " means the mean over negative anchors here, which nearly all are.",
    "Table 6": "Without the warm-up on the server's own data sets, and with its whole ones alone.",
}
"""What each of the tables that compare arms shows."""


@dataclass(frozen=True)
class Part:
    """Everything that is known of one space.

    Attributes:
        space: hpo or nas.
        setting: the table, and how the runs went.
        trials: all trials behind the table.
        outcomes: rows of the runs on it (`runs.outcomes`).
        warm_ups: rows of the warm-ups (`warm_ups.warm_ups`).
    """

    space: str
    setting: Setting
    trials: list[MeasuredTrial]
    outcomes: pd.DataFrame
    warm_ups: pd.DataFrame

    @property
    def table(self) -> Table:
        """The table."""
        return self.setting.table

    @property
    def folder(self) -> Path:
        """The table's folder."""
        return self.setting.folder

    @property
    def label(self) -> str:
        """The space, the regime and the number of offline data sets, which everything that follows from runs says."""
        return f"{self.space}, {self.setting.protocol}"

    @property
    def clients(self) -> list[int]:
        """Indices of the tasks that are not the server's."""
        return [place for place in range(len(self.table.tasks)) if place not in self.table.server]

    @property
    def gaps(self) -> list[str]:
        """What was not measured, and which arms could not be run for what reason, as sentences."""
        reasons: dict[str, list[str]] = {}
        for name, arm in ARMS.items():
            if reason := unavailable(arm, self.table, self.setting.protocol):
                reasons.setdefault(reason, []).append(name)
        without = [f"{self.space}: without {', '.join(names)}, as {reason}." for reason, names in reasons.items()]
        return [f"{self.space}: {self.table.gaps}"] * bool(self.table.gaps) + without


@dataclass(frozen=True)
class Exhibit:
    """The counterpart of a table or figure of the paper.

    Attributes:
        name: of the paper's table or figure.
        about: what it shows.
        frames: tables, by their captions.
        figures: PNG files.
        says: sentences on what agrees with the paper and what does not.
    """

    name: str
    about: str
    frames: dict[str, pd.DataFrame] = field(default_factory=dict)
    figures: list[Path] = field(default_factory=list)
    says: list[str] = field(default_factory=list)


def all_of(parts: Sequence[Part], seeds: int, orders: int, out: Path) -> Iterator[Exhibit]:
    """Make all exhibits in the paper's order; each leaves its CSVs and pictures in `out`."""
    yield from performance(parts, seeds, out)
    yield budgets(parts, seeds, out)
    yield over_orders(parts, orders, out)
    yield meta_features(parts, out)
    yield spreads(parts, out)
    for part in parts:
        yield per_data_set(part, seeds, out)
        yield best_configurations(part, out)


def performance(parts: Sequence[Part], seeds: int, out: Path) -> Iterator[Exhibit]:
    """Make Tables 1 to 6."""
    for name, about in PERFORMANCE.items():
        frames, says = {}, []
        for part in parts:
            first = "NDCG(val)" if name == "Table 5" else "gain"
            ndcg = part.warm_ups if name == "Table 5" else None
            rows = comparison.compared(name, part.space, part.outcomes, seeds, ndcg)
            _write(comparison.numbers(rows, first), _file(out, name, part), part)
            frames[part.label] = comparison.frame(rows, first)
            says.append(f"{part.label}: {comparison.statement(rows)}")
            if name == "Table 1":
                says.append(f"{part.label}: {comparison.goal(rows, part.outcomes, seeds)}")
        yield Exhibit(name, about, frames, says=says)


def budgets(parts: Sequence[Part], seeds: int, out: Path) -> Exhibit:
    """Make Figure 3."""
    path = out / "figure_3.png"
    points = figures.against_budget({part.label: part.outcomes for part in parts}, seeds, path)
    points.to_csv(out / "figure_3.csv", index=False)
    says = []
    for label, own in points.groupby("runs", sort=False):
        best = own.loc[own.groupby("budget")["mean"].idxmin()].itertuples()
        told = ", ".join(f"{row.arm} at {row.budget} ({row.mean:.1f})" for row in best)
        says.append(f"{label}: lowest Rank%: {told}. In the paper HyperFD is nearly always lowest.")
    return Exhibit("Figure 3", "Rank% against the budget; bands are standard errors.", figures=[path], says=says)


def over_orders(parts: Sequence[Part], orders: int, out: Path) -> Exhibit:
    """Make Figure 4."""
    path = out / "figure_4.png"
    found = figures.over_orders({part.label: part.outcomes for part in parts}, orders, path)
    found.to_csv(out / "figure_4.csv", index=False)
    says = []
    for label, own in found.groupby("runs", sort=False):
        worst, average = own.set_index("arm")["worst"], own.set_index("arm")["mean"]["Random search"]
        parts_of_it = [
            f"{arm}'s worst order ({worst[arm]:.1f}) is {'better' if worst[arm] < average else 'not better'}"
            for arm in (FULL, DEFAULT)
        ]
        says.append(f"{label}: {' and '.join(parts_of_it)} than random search on average ({average:.1f}); in the paper"
                    " it is better.")  # fmt: skip
    about = "Rank% of whole runs with their tasks in different orders; whiskers reach the extremes."
    return Exhibit("Figure 4", about, {"Rank% over orders": found.round(2)}, [path], says)


def meta_features(parts: Sequence[Part], out: Path) -> Exhibit:
    """Make Figure 5, of the tables that have image features and whose runs were warmed up."""
    frames: dict[str, pd.DataFrame] = {}
    pictures: list[Path] = []
    says: list[str] = []
    for part in parts:
        if not part.table.images or not part.setting.protocol.offline:
            continue
        pictures.append(out / f"figure_5_{part.space}.png")
        extractor = warmed_extractor(part.setting, out, FULL)
        frame = figures.meta_features(part.table, part.clients, extractor, part.label, pictures[-1])
        _write(frame, _file(out, "Figure 5", part), part)
        frames[part.label] = frame.round(3)
        says.append(
            f"{part.label}: {(frame.silhouette > 0).sum()} of {len(frame)} data sets lie apart from the others, mean"
            f" silhouette {frame.silhouette.mean():.2f}; in the paper most do."
        )
    about = (
        "t-SNE of meta-features by the warmed-up extractor, before any of these data sets was a task. The silhouette is"
        " 1 where a data set's batches lie together and far from others', 0 or less where they are mingled."
    )
    return Exhibit("Figure 5", about, frames, pictures, says)


def spreads(parts: Sequence[Part], out: Path) -> Exhibit:
    """Make Figures 7 to 9, by `benchmark.spread`."""
    pictures: list[Path] = []
    says: list[str] = []
    for part in parts:
        clients = [part.table.tasks[place] for place in part.clients]
        first = min(trial.seed for trial in part.trials)
        found = [spread.spread_of(client, part.trials, first) for client in clients]
        on_test = spread.performance_on_test(clients, part.trials, first)
        between = spread.between_data_sets(on_test)
        pictures.append(out / f"figures_7_to_9_{part.space}.png")
        title = f"{part.space}: {len(clients)} data sets, {on_test.shape[1]} configurations"
        spread.draw(found, on_test, between, title, pictures[-1])
        pd.DataFrame(found).to_csv(_file(out, "Figures 7 and 8", part), index=False)
        pd.DataFrame(between, clients, clients).to_csv(_file(out, "Figure 9", part))
        says += [f"{part.space}: {line}" for line in spread.statement(found, between)]
    about = (
        "Performance of all configurations, validation against test, and between data sets. In the paper most"
        " validation-test correlations with hyper-parameters exceed 0.8, and those between data sets are higher with"
        " architectures."
    )
    return Exhibit("Figures 7 to 9", about, figures=pictures, says=says)


def per_data_set(part: Part, seeds: int, out: Path) -> Exhibit:
    """Make Table 13: test AP of the pick that validated best, and Rank%, of each data set."""
    chosen = (part.outcomes.budget == BUDGET) & (part.outcomes.seed < seeds) & part.outcomes.arm.isin(BASELINES)
    own = part.outcomes[chosen].copy()
    with np.load(part.folder / "performance.npz") as arrays:
        own["test_ap"] = 100 * arrays["test"][own.task.map(part.table.tasks.index), own.picked]
    frames = {}
    for measure, caption in (("test_ap", "AP@50 on test, in points"), ("rank_percent", "Rank%")):
        grouped = own.groupby(["arm", "task"])[measure]
        cells = grouped.mean().map("{:.1f}".format) + " ± " + grouped.std().map("{:.1f}".format)
        wide = cells.unstack("task")
        wide["average"] = own.groupby("arm")[measure].mean().map("{:.2f}".format)
        frames[caption] = wide.reindex([arm for arm in BASELINES if arm in wide.index]).reset_index(names="")
        _write(frames[caption], _file(out, f"Table 13 {measure}", part), part)
    about = f"Means ± standard deviations over seeds, by data set; {part.setting.protocol}."
    return Exhibit(f"Table 13, {part.space}", about, frames)


def best_configurations(part: Part, out: Path) -> Exhibit:
    """Make Table 14, or Figure 10 for architectures: the configuration of highest validation AP on each data set."""
    with np.load(part.folder / "performance.npz") as arrays:
        names, test = arrays["configs"], arrays["test"]
    values = pd.read_csv(part.folder / "configs.csv.gz", dtype=str, keep_default_na=False).set_index("config_id")
    rows = []
    for place in part.clients:
        if np.isfinite(part.table.performance[place]).any():
            best = int(np.nanargmax(part.table.performance[place]))
            ap = {"AP val": f"{part.table.performance[place, best]:.3f}", "AP test": f"{test[place, best]:.3f}"}
            rows.append({"data set": part.table.tasks[place], **ap, **values.loc[str(names[best])]})
    found = pd.DataFrame(rows)
    different = len(found[values.columns].drop_duplicates())
    says = [
        f"{part.space}: {different} different configurations are best on {len(found)} data sets;"
        " in the paper all differ."
    ]
    if part.table.configurations.graphs is None:
        found.to_csv(_file(out, "Table 14", part), index=False)
        return Exhibit(
            "Table 14", "The best configuration on each data set, by validation AP.", {part.space: found}, says=says
        )
    found.to_csv(_file(out, "Figure 10", part), index=False)
    path = out / "figure_10.png"
    figures.architectures(found, path)
    return Exhibit("Figure 10", "The best architecture on each data set, by validation AP.", figures=[path], says=says)


def _write(frame: pd.DataFrame, path: Path, part: Part) -> None:
    """Write what follows from runs as CSV, with their regime and number of offline data sets."""
    how = {"regime": part.setting.protocol.regime.value, "offline": part.setting.protocol.offline}
    frame.assign(**how).to_csv(path, index=False)


def _file(out: Path, name: str, part: Part) -> Path:
    """Path of an exhibit's CSV."""
    return out / f"{name.lower().replace(' ', '_')}_{part.space}.csv"
