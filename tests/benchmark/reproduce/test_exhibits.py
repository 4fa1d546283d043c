"""Tables and figures: against plain loops over the rows of runs, and by hand."""

from __future__ import annotations

import csv
import gzip
import statistics
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nni_hyperfd.benchmark import lookup, measured, tables
from nni_hyperfd.benchmark.regime import Regime
from nni_hyperfd.benchmark.reproduce import exhibits, figures, plan, runs, warm_ups
from nni_hyperfd.benchmark.reproduce.arms import FULL
from nni_hyperfd.benchmark.reproduce.exhibits import Part
from nni_hyperfd.space import architecture

RANDOM = "Random search"


def part(folder: Path, out: Path, space: str = "hpo", regime: Regime = Regime.REAL) -> Part:
    trials = measured.read_trials(folder / lookup.TRIALS)
    (setting,) = plan.settings([folder], regime)
    return Part(space, setting, trials, runs.outcomes(out), warm_ups.warm_ups(setting, out))


def test_clients_and_gaps(folder: Path, make, tmp_path: Path) -> None:
    whole = part(folder, tmp_path)
    assert [whole.table.tasks[place] for place in whole.clients] == ["mask", "toon", "fisheye"]
    assert whole.gaps == ["hpo: 1 of 48 results are missing (toon 1)."]
    bare = part(
        make(tmp_path / "bare", features=False, server=("general", "pets"), clients=("mask", "fisheye")), tmp_path
    )
    images, augmentation = bare.gaps
    assert "without HyperFD (ResNet), Anchor-level: w/o labels, " in images and images.endswith("no image features.")
    assert augmentation == (
        "hpo: without w/o augmentation, as the server's sub-data-sets are not all known, or there are none."
    )
    empty = exhibits.meta_features([bare], tmp_path)
    assert not empty.frames and not empty.figures and not empty.says
    cold = part(folder, tmp_path, regime=Regime.COLD)
    assert cold.label == "hpo, cold regime, no offline data sets"
    assert not exhibits.meta_features([cold], tmp_path).figures, "no extractor is warmed up"
    assert (
        cold.gaps[1] == "hpo: without w/o warm-up, w/o augmentation, as nothing is warmed up without offline data sets."
    )


def test_table_13_is_the_mean_of_the_picks_on_test(reproduced, folder: Path) -> None:
    out, _ = reproduced
    found = pd.read_csv(out / "table_13_test_ap_hpo.csv", index_col=0)
    assert list(found.index) == [RANDOM, FULL, "default preset"], "those of Table 1, in its order"
    with np.load(folder / "performance.npz") as arrays:
        test, tasks = arrays["test"], arrays["tasks"].tolist()
    everything = []
    for task in ("mask", "toon", "fisheye"):
        values = [
            100 * test[tasks.index(task), row.picked]
            for row in runs.outcomes(out).itertuples()
            if (row.arm, row.task, row.budget) == (RANDOM, task, plan.BUDGET)
        ]
        assert len(values) == 2
        assert found.loc[RANDOM, task] == f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"
        everything += values
    assert found.loc[RANDOM, "average"] == pytest.approx(statistics.mean(everything), abs=0.006)


def test_table_14_names_the_best_configuration_of_each_data_set(reproduced, folder: Path) -> None:
    out, _ = reproduced
    found = pd.read_csv(out / "table_14_hpo.csv").set_index("data set")
    table = tables.load(folder)
    with gzip.open(folder / "configs.csv.gz", "rt") as file:
        configurations = list(csv.DictReader(file))
    for task in ("mask", "toon", "fisheye"):
        values = table.performance[table.tasks.index(task)]
        best = max(range(8), key=lambda place: -1 if np.isnan(values[place]) else values[place])
        assert found.loc[task, "AP val"] == pytest.approx(values[best], abs=6e-4)
        assert found.loc[task, "AP test"] == pytest.approx(values[best] / 2 + 0.1, abs=6e-4)
        own = {name: str(value) for name, value in configurations[best].items() if name != "config_id"}
        assert {name: str(found.loc[task, name]) for name in own} == {
            name: str(pd.Series([value]).astype(found[name].dtype)[0]) for name, value in own.items()
        }


def test_figures_3_to_5_say_what_the_runs_say(reproduced) -> None:
    out, _ = reproduced
    rows = runs.outcomes(out)
    points = pd.read_csv(out / "figure_3.csv").set_index(["arm", "budget"])
    orders = pd.read_csv(out / "figure_4.csv").set_index("arm")
    for budget in plan.BUDGETS:
        chosen = rows[(rows.arm == RANDOM) & (rows.budget == budget)]
        means = [chosen[chosen.seed == seed].rank_percent.sum() / 3 for seed in (0, 1)]
        assert points.loc[(RANDOM, budget), "mean"] == pytest.approx(statistics.mean(means))
        assert points.loc[(RANDOM, budget), "se"] == pytest.approx(abs(means[0] - means[1]) / 2)
        if budget == plan.BUDGET:
            assert orders.loc[RANDOM, ["orders", "best", "worst"]].tolist() == pytest.approx([2, *sorted(means)])
    apart = pd.read_csv(out / "figure_5_hpo.csv").set_index("data set").silhouette
    assert sorted(apart.index) == ["fisheye", "mask", "toon"] and apart.between(-1, 1).all()


def test_figure_10_draws_each_block_of_the_best_architectures(make, tmp_path: Path, monkeypatch) -> None:
    drawn = []

    class Figure(figures.Figure):
        def __init__(self, *arguments, **keywords) -> None:
            super().__init__(*arguments, **keywords)
            drawn.append(self)

    monkeypatch.setattr(figures, "Figure", Figure)
    nas = part(make(tmp_path / "nas", space="proxylessnas", features=False), tmp_path, "nas")
    exhibit = exhibits.best_configurations(nas, tmp_path)
    assert exhibit.name == "Figure 10" and exhibit.figures == [tmp_path / "figure_10.png"]
    assert exhibit.figures[0].read_bytes().startswith(b"\x89PNG")
    found = pd.read_csv(tmp_path / "figure_10_nas.csv", dtype=str, keep_default_na=False).to_dict("records")
    assert [row["data set"] for row in found] == ["mask", "toon", "fisheye"]
    panel = drawn[0].axes[0]
    shown = np.ma.filled(panel.images[0].get_array(), np.nan)
    names = [label.get_text() for label in panel.get_xticklabels()]
    assert len(names) == shown.shape[1] == 3 + 3 + 4 + 4 + 4 + 1
    for row, cells in zip(found, shown, strict=True):
        for name, cell in zip(names, cells, strict=True):
            stage, block = name.split(".")
            if int(block) > int(row.get(f"stage{stage}_depth", 1)):
                assert np.isnan(cell), name
            else:
                expand, kernel = (row[f"stage{stage}_block{block}_{what}"] for what in ("expand", "kernel"))
                assert architecture.OPERATIONS[int(cell)] == (int(expand), int(kernel)), name
