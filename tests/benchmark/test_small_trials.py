"""Small and large trials of the same configurations: by hand, and what cannot be compared."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from nni_hyperfd.benchmark import measured
from nni_hyperfd.benchmark.measured import START
from nni_hyperfd.benchmark.small_trials import main, transfer, transfers
from nni_hyperfd.benchmark.tables import TableError

from .test_measured import fill, row

app = Typer()
app.command()(main)


def test_one_data_set_by_hand() -> None:
    small = np.array([0.5, 0.9, 0.8, 0.7, 0.6])
    large = np.array([0.9, 0.5, 0.6, 0.7, 0.8])
    found = transfer("mask", (small, small), (large, small))
    assert found.correlation == pytest.approx(-1) and found.correlation_test == pytest.approx(1)
    assert found.agreement == pytest.approx(-1)
    assert (found.first, found.best_of_four) == (100, 40)  # the best of 1, 2, 3 and 4 is 4, the second of five
    assert (found.chance, found.chance_of_four) == pytest.approx((60, 24))
    assert found.lost == pytest.approx(0.1)


def test_equal_results_share_a_rank() -> None:
    found = transfer("mask", (np.array([0.1, 0.2]), np.zeros(2)), (np.zeros(2), np.zeros(2)))
    assert found.first == found.best_of_four == 75 and found.lost == 0 and np.isnan(found.correlation)


def aps(domain: str, values: list[float], seed: int = 0) -> list[dict]:
    return [row(domain, f"c{place:04d}", seed, value, value) for place, value in enumerate(values)]


def test_the_program_compares_what_both_have(tmp_path: Path) -> None:
    small = [*aps("mask", [0.1, 0.2, 0.3, 0.4]), *aps("toon", [0.4, 0.3, 0.2]), *aps("mask", [0.9, 0.1], seed=1)]
    large = [*aps("mask", [0.2, 0.3, 0.4]), *aps("toon", [0.2, 0.3, 0.4]), *aps("fisheye", [0.5])]
    large.append(row("mask", START, val=1.0, test=1.0))
    for name, rows in (("small", small), ("large", large)):
        fill(tmp_path / name, rows)
    arguments = [str(tmp_path / "small"), str(tmp_path / "large"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    told = " ".join(result.output.split())
    assert "Means over 2 data sets: rank correlation of small and large trials 0 " in told
    assert "of the best small one 66.7 ± 33 (chance 66.7)" in told
    with (tmp_path / "out" / "small_trials.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [(line["domain"], line["configurations"]) for line in found] == [("mask", "3"), ("toon", "3")]
    assert [float(line["correlation"]) for line in found] == pytest.approx([1, -1])


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    small = fill(tmp_path / "small", aps("mask", [0.1, 0.2]))
    large = fill(tmp_path / "large", aps("toon", [0.1, 0.2]))
    with pytest.raises(TableError, match="no configuration on the same data set in common"):
        transfers(measured.read(small), measured.read(large))
    content = json.loads((large / "domains.json").read_text())
    content["mask"]["fingerprint"] = "y"
    (large / "domains.json").write_text(json.dumps(content))
    with pytest.raises(TableError, match="The data set mask is not the same in both folders"):
        transfers(measured.read(small), measured.read(large))
    other = fill(tmp_path / "nas", aps("mask", [0.1]), "proxylessnas")
    with pytest.raises(TableError, match="The small trials are of the space hpo "):
        transfers(measured.read(small), measured.read(other))
    result = CliRunner().invoke(app, [str(small), str(tmp_path / "none")], env={"COLUMNS": "500"})
    assert result.exit_code != 0 and "settings.json cannot be read" in result.output
