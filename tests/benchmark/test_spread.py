"""Spread between configurations and between seeds, and rank correlations: by hand, and at the edges."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import rankdata
from typer import Typer
from typer.testing import CliRunner

from nni_hyperfd.benchmark import lookup, measured
from nni_hyperfd.benchmark.measured import START, MeasuredTrial
from nni_hyperfd.benchmark.spread import (
    between_data_sets,
    main,
    performance_on_test,
    pooled_deviation,
    rank_correlation,
    spread_of,
    statement,
)

from .test_measured import DOMAINS, fill, row

app = Typer()
app.command()(main)


def trial(domain: str, name: str, seed: int, val: float, test: float) -> MeasuredTrial:
    return MeasuredTrial(domain, name, seed, val, test, 1.0, {"status": "failed" if np.isnan(val) else "measured"})


def test_one_data_set_by_hand() -> None:
    nan = np.nan
    trials = [
        trial("mask", START, 5, 0.1, 0.05),
        trial("mask", "a", 5, 0.5, 0.4),
        trial("mask", "b", 5, 0.7, 0.6),
        trial("mask", "c", 5, 0.6, 0.8),
        trial("mask", "d", 5, nan, nan),
        trial("mask", "a", 6, 0.6, 0.4),
        trial("mask", "b", 6, 0.7, 0.7),
        trial("mask", "b", 7, nan, nan),
        trial("toon", "a", 5, 0.9, 0.9),
    ]
    found = spread_of("mask", trials, seed=5)
    assert (found.measured, found.failed, found.repeated) == (3, 1, 2)
    assert (found.before_test, found.median_test, found.best_test) == (0.05, 0.6, 0.8)
    assert found.configurations_val == pytest.approx(statistics.stdev([0.5, 0.7, 0.6]))
    assert found.configurations_test == pytest.approx(0.2)
    # a: 0.5, 0.6 and b: 0.7, 0.7, each with one degree of freedom; on test a: 0.4, 0.4 and b: 0.6, 0.7
    assert found.seeds_val == found.seeds_test == pytest.approx((0.005 / 2) ** 0.5)
    assert found.ratio_test == pytest.approx(4)
    assert found.real_test == pytest.approx((0.04 - 0.0025) ** 0.5)
    assert found.agreement == pytest.approx(0.5)  # ranks 1 3 2 and 1 2 3: 1 - 6 * 2 / 24


def test_data_sets_on_which_seeds_differ_more_are_flat() -> None:
    def data_set(name: str, step: float) -> list[MeasuredTrial]:
        """Three configurations so far apart, each with two seeds that are 0.02 apart."""
        aps = [0.5 + step * place for place in range(3)]
        return [trial(name, str(n), seed, ap + 0.02 * seed, ap) for n, ap in enumerate(aps) for seed in (0, 1)]

    seeds = 0.02 / 2**0.5
    trials = [*data_set("steep", 2 * seeds), *data_set("flat", 1.4 * seeds)]
    steep, flat = (spread_of(name, trials, seed=0) for name in ("steep", "flat"))
    assert (steep.flat, flat.flat) == (False, True)
    assert flat.seeds_val == pytest.approx(seeds) and flat.real_val == pytest.approx(0.96**0.5 * seeds)
    told = statement([steep, flat, steep], np.array([[1.0, 0.2, 0.4], [0.2, 1.0, 0.2], [0.4, 0.2, 1.0]]))
    assert told[3] == (
        "Flat data sets, where configurations differ less than seeds do on validation (AP): flat (0.014 and 0.014)."
    )
    assert "two data sets (test, without flat ones): mean 0.40, least 0.40, greatest 0.40." in told[4]


def test_what_cannot_be_told_is_nan() -> None:
    alone = spread_of("toon", [trial("toon", "a", 0, 0.5, 0.5)], seed=0)
    assert alone.median_test == 0.5 and alone.repeated == 0 and not alone.flat
    for name in ("configurations_val", "seeds_val", "ratio_val", "real_test", "agreement", "before_test"):
        assert np.isnan(getattr(alone, name)), name
    nothing = spread_of("toon", [], seed=0)
    assert nothing.measured == 0 and np.isnan(nothing.best_test)
    # Nothing ever found: seeds do not differ, so there is no ratio.
    zeros = spread_of("toon", [trial("toon", name, seed, 0.0, 0.0) for name in "abc" for seed in (0, 1)], seed=0)
    assert zeros.seeds_test == 0 and np.isnan(zeros.ratio_test) and np.isnan(zeros.agreement)
    told = " ".join(statement([alone, nothing, zeros], np.full((3, 3), np.nan)))
    assert "on 0 of 0 data sets where both are known; the median ratio is unknown" in told


def test_the_pooled_deviation_of_equal_groups_is_that_of_their_mean_variance() -> None:
    rng = np.random.default_rng(0)
    groups = rng.normal(rng.random((5, 1)), 0.1, (5, 3))
    expected = np.mean([statistics.variance(group) for group in groups.tolist()]) ** 0.5
    assert pooled_deviation([*groups.tolist(), [7.0]]) == pytest.approx(expected)
    assert np.isnan(pooled_deviation([[1.0], []]))


def test_rank_correlations_are_pearsons_of_the_ranks_where_both_are_known() -> None:
    rng = np.random.default_rng(0)
    performance = rng.integers(0, 10, (4, 40)) / 10
    performance[0, :3] = performance[1, 2:9] = np.nan
    performance[3] = 0.5
    found = between_data_sets(performance)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        known = np.isfinite(performance[a]) & np.isfinite(performance[b])
        ranks = [rankdata(performance[place][known]) for place in (a, b)]
        assert [found[a, b], found[b, a]] == pytest.approx([np.corrcoef(*ranks)[0, 1]] * 2)
    assert np.diag(found)[:3] == pytest.approx(1) and np.isnan(found[3]).all()
    assert np.isnan(rank_correlation(np.array([1.0, 2.0]), np.array([1.0, 2.0])))


def test_the_test_ap_of_the_first_seed_is_laid_out() -> None:
    trials = [trial("x", "a", 1, 0.5, 0.1), trial("x", "a", 0, 0.5, 0.2), trial("y", "b", 0, 0.5, 0.3)]
    trials.append(trial("y", START, 0, 0.5, 0.9))
    nan = np.nan
    np.testing.assert_equal(performance_on_test(["x", "y", "z"], trials, 0), [[0.2, nan], [nan, 0.3], [nan, nan]])


def test_the_program_writes_what_it_says(tmp_path: Path) -> None:
    """Configurations a tenth apart, seeds a hundredth; the one data set turned round, the last one with gaps."""
    rows = []
    for domain in DOMAINS:
        rows.append(row(domain, START, val=0.1, test=0.1))
        for place in range(4):
            ap = 0.3 + 0.1 * (3 - place if domain == "toon" else place)
            rows += [row(domain, f"c{place:04d}", seed, ap + 0.01 * seed, ap - 0.01 * seed) for seed in range(3)]
    rows = [r for r in rows if (r["domain"], r["configuration"]) != ("fisheye", "c0000")]
    lookup.write(measured.read(fill(tmp_path / "measured", rows)), tmp_path / "faces")
    result = CliRunner().invoke(app, [str(tmp_path / "faces"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    told = " ".join(result.output.split())
    assert told == " ".join((tmp_path / "out" / "spread.txt").read_text().split())
    assert "On validation, configurations differ by more than 2 times what seeds do on 3 of 3 data sets" in told
    assert "validation and test: median 1.00, least 1.00" in told
    assert "two data sets (test): mean -0.33, least -1.00, greatest 1.00" in told
    assert "1 of 12 results are missing (fisheye 1)." in told
    with (tmp_path / "out" / "spread.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [line["domain"] for line in found] == list(DOMAINS) and found[2]["measured"] == "3"
    assert float(found[0]["seeds_test"]) == pytest.approx(0.01)
    with (tmp_path / "out" / "between.csv").open(newline="") as file:
        assert [line["domain"] for line in csv.DictReader(file)] == list(DOMAINS)
    assert (tmp_path / "out" / "spread.png").stat().st_size > 10_000


def test_other_tables_are_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path)], env={"COLUMNS": "500"})
    assert result.exit_code != 0 and "meta.json cannot be read" in result.output
