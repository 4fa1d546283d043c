"""Regret in AP by hand, and the program on a real table and real runs."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from nni_hyperfd.benchmark import lookup, measured
from nni_hyperfd.benchmark.measured import START
from nni_hyperfd.benchmark.regret import main, mean_over_seeds, regret
from nni_hyperfd.cli import app as hyperfd

from .test_measured import DOMAINS, fill, row
from .test_spread import trial

app = Typer()
app.command()(main)


def test_the_pick_that_is_kept_is_compared_by_its_mean() -> None:
    nan = np.nan
    expected = np.array([0.5, 0.6, 0.7, nan])
    told = np.array([0.65, 0.6, 0.7, nan])
    assert regret(expected, told, [2]) == 0
    assert regret(expected, told, [1, 0]) == pytest.approx(0.2)  # the first one was lucky and is kept
    assert regret(expected, told, [0, 1, 2]) == 0


def test_means_are_over_the_seeds_that_did_not_fail() -> None:
    trials = [trial("x", "a", 0, 0.5, 0.5), trial("x", "a", 1, 0.7, 0.5), trial("x", "a", 2, np.nan, np.nan)]
    trials.append(trial("x", START, 0, 0.9, 0.9))
    np.testing.assert_allclose(mean_over_seeds(["x", "y"], ["a", "b"], trials), [[0.6, np.nan], [np.nan, np.nan]])


def test_the_program_shows_flat_data_sets_apart(tmp_path: Path) -> None:
    """On the last data set configurations are equal but for the seed; on the others they are a tenth apart."""
    rows = []
    for domain in DOMAINS:
        step = 0.0 if domain == DOMAINS[-1] else 0.1
        for place in range(4):
            ap = 0.3 + step * place
            rows += [row(domain, f"c{place:04d}", seed, ap + 0.02 * seed, ap) for seed in range(3)]
    table, runs = tmp_path / "faces", tmp_path / "runs"
    lookup.write(measured.read(fill(tmp_path / "measured", rows)), table)
    options = ["--recommenders", "random", "--regime", "cold", "--seeds", "4", "--budget", "1,4", "--out", str(runs)]
    assert CliRunner().invoke(hyperfd, ["benchmark", str(table), *options]).exit_code == 0
    result = CliRunner().invoke(app, [str(table), str(runs), "--out", str(tmp_path / "out")], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "between seeds, AP x 100: 2.00 without flat data sets. Flat: fisheye." in " ".join(result.output.split())
    with (tmp_path / "out" / "regret.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == 2 * len(DOMAINS)
    for line in found:
        assert line["runs"] == "4" and line["flat"] == str(line["domain"] == "fisheye")
        assert float(line["seeds"]) == pytest.approx(0.02)
        if line["flat"] == "True" or "budget 4" in line["protocol"]:
            assert float(line["regret"]) == pytest.approx(0, abs=1e-12)
        else:
            assert 0 < float(line["regret"]) <= 0.3 + 1e-12


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    lookup.write(measured.read(fill(tmp_path / "measured", [row(d, "c0000", 0, 0.5, 0.5) for d in DOMAINS])), tmp_path)
    result = CliRunner().invoke(app, [str(tmp_path), str(tmp_path / "none")], env={"COLUMNS": "500"})
    assert result.exit_code != 0 and "has no finished run on the table" in result.output
