"""Means, both standard errors and paired differences, by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from nni_hyperfd.benchmark import report
from nni_hyperfd.benchmark.protocol import Outcome, Protocol
from nni_hyperfd.benchmark.regime import Regime
from nni_hyperfd.benchmark.report import REFERENCE, Estimate, summarised
from nni_hyperfd.benchmark.results import RecommenderRun
from nni_hyperfd.benchmark.tables import Table
from nni_hyperfd.space.encoded import EncodedConfigurations


def outcome(position: int, task: str, ranks: tuple[float, ...]) -> Outcome:
    return Outcome(position, task, tuple(range(len(ranks))), ranks, gain=ranks[-1] / 100, ndcg=0.5, regret=0.1)


def made(name: str, ranks: list[dict[str, float]], protocol: Protocol = Protocol(offline=1)) -> list[RecommenderRun]:  # noqa: B008
    """One run per seed; ranks: Rank% of each task, in the order of the run."""
    return [
        RecommenderRun(
            "toy",
            name,
            seed,
            protocol,
            tuple(outcome(place, task, (rank,)) for place, (task, rank) in enumerate(row.items())),
            seconds=2.0 + seed,
        )
        for seed, row in enumerate(ranks)
    ]


def close(estimate: Estimate) -> tuple[object, ...]:
    return tuple(
        pytest.approx(value, nan_ok=True) for value in (estimate.mean, estimate.error, estimate.over_data_sets)
    )


def test_errors_over_seeds_and_over_data_sets_by_hand() -> None:
    # Means of the seeds 3, 5, 10; of the data sets a 4, b 8.
    (found,) = summarised(made("x", [{"a": 1, "b": 5}, {"b": 7, "a": 3}, {"a": 8, "b": 12}]))
    wanted = Estimate(6, np.std([3, 5, 10], ddof=1) / 3**0.5, (8 - 4) / 2)
    measures = found.measures
    assert (found.seeds, found.recommender, found.missing) == (3, "x", 0)
    assert vars(measures["rank_percent"]) == pytest.approx(vars(wanted))
    # Gain is the sum over the data sets: .12 on average, and twice as far apart between data sets as their mean is.
    gain = Estimate(0.12, 2 * wanted.error / 100, 2 * wanted.over_data_sets / 100)
    assert vars(measures["gain"]) == pytest.approx(vars(gain))
    assert measures["seconds"].mean == 3 and math.isnan(measures["seconds"].over_data_sets)
    assert measures["seconds_per_pick"].mean == 1.5


def test_data_sets_that_came_in_some_runs_alone() -> None:
    (found,) = summarised(made("x", [{"a": 1, "b": 3}, {"a": 3, "c": 13}]))
    # The seeds' means are 2 and 8, those of the data sets 2, 3 and 13.
    wanted = Estimate(5, 3, np.std([2, 3, 13], ddof=1) / 3**0.5)
    assert vars(found.measures["rank_percent"]) == pytest.approx(vars(wanted))


def test_paired_differences_by_hand() -> None:
    ours = made("x", [{"a": 1, "b": 5}, {"a": 4, "b": 4}, {"a": 9, "b": 9}])
    reference = made(REFERENCE, [{"a": 2, "b": 1}, {"a": 2, "b": 2}])
    found, theirs = summarised(ours + reference)
    # Seed 0: -1 and 4, seed 1: 2 and 2, so 1.5 and 2; data set a: .5, b: 3.
    assert vars(found.differences["rank_percent"]) == pytest.approx(vars(Estimate(1.75, 0.25, 1.25)))
    assert found.measures["rank_percent"].mean == pytest.approx(16 / 3)
    assert theirs.differences["rank_percent"] == Estimate(0, 0, 0)
    (alone, *_) = summarised(ours + reference, "nobody")
    assert alone.differences == {}


def test_halves_of_a_run_by_hand() -> None:
    # the task in the middle belongs to the first half
    runs = made("x", [{"a": 9, "b": 1, "c": 5}, {"c": 9, "a": 1, "b": 7}])
    runs += made(REFERENCE, [{"a": 4, "b": 4, "c": 4}, {"c": 4, "a": 4, "b": 4}])
    found, _ = summarised(runs)
    means = [found.measures[name].mean for name in ("rank_percent", "first_half", "second_half")]
    assert means == pytest.approx([16 / 3, 5, 6])
    # First half: a 9 and 1, b 1, c 9 against 4; second half: c 5, b 7.
    first = Estimate(1, 0, np.std([1, -3, 5], ddof=1) / 3**0.5)
    assert vars(found.differences["first_half"]) == pytest.approx(vars(first))
    assert found.differences["second_half"] == Estimate(2, 1, 1)
    (single, _) = summarised(made("x", [{"a": 3}]) + made(REFERENCE, [{"a": 1}]))
    assert math.isnan(single.measures["second_half"].mean) and single.differences["rank_percent"].mean == 2


def test_equal_values_have_no_spread() -> None:
    assert Estimate.of([0.1] * 7).error == 0, "whatever the mean of equal values is rounded to"


def test_an_estimate_is_printed_without_what_rounding_leaves() -> None:
    assert str(Estimate.of([0.1, 0.2, -0.3])) == "0 ± 0.15"
    assert str(Estimate(0.00123456, 0.000456)) == "0.00123 ± 0.00046"
    assert str(Estimate.of([])) == "nan ± nan"


def test_budgets_and_regimes_are_summarised_apart() -> None:
    two, cold = Protocol(offline=1, budget=2), Protocol(Regime.COLD, offline=0)
    runs = made("x", [{"a": 3}], two) + made("x", [{"a": 5}], cold)
    runs += made("x", [{"a": 1}]) + made(REFERENCE, [{"a": 2}])
    found = {(one.protocol, one.recommender): one for one in summarised(runs)}
    assert len(found) == 4 and found[two, "x"].differences == found[cold, "x"].differences == {}
    assert found[Protocol(offline=1), "x"].differences["rank_percent"].mean == -1


def test_one_run_gives_all_smaller_budgets() -> None:
    ranks = tuple(float(50 - place) for place in range(10))
    protocol = Protocol(offline=1, budget=10)
    run = RecommenderRun("toy", "x", 0, protocol, (outcome(0, "a", ranks), outcome(1, "b", ranks[:3])), 1.0)
    found = report.means_of(run)
    curve = {name: value for name, value in found.items() if name.startswith("rank_percent_")}
    # b had three candidates only
    assert curve == {"rank_percent_1": 50, "rank_percent_2": 49, "rank_percent_4": 47.5, "rank_percent_8": 45.5}
    assert found["rank_percent"] == (41 + 48) / 2


def test_what_is_published_says_how_the_runs_went(tmp_path: Path) -> None:
    performance = np.array([[1.0, 2.0], [2.0, np.nan]])
    table = Table(
        "toy", ["a", "b"], performance, EncodedConfigurations(np.eye(2, dtype=np.float32)), np.zeros((2, 1), np.float32)
    )
    runs = made("x", [{"a": 1, "b": 5}, {"a": 4, "b": 4}]) + made("y", [{"a": 2, "b": 2}, {"a": 2, "b": 6}])
    console = Console(record=True, width=100)
    report.publish(runs, [table], "y", "the command", tmp_path, console)
    told = console.export_text()
    assert "toy, budget 4, 2 seeds: real regime, 1 offline data set; ± over seeds, ± over data sets" in " ".join(
        told.split()
    )
    assert "3.50 ±0.50 ±1.00" in told and "- y" in told and "1 of 4 results are missing (b 1)" in told
    found = json.loads((tmp_path / "summary.json").read_text())
    assert (found["command"], found["reference"]) == ("the command", "y")
    assert found["tables"] == {"toy": {"digest": table.digest, "missing": 1}}
    first = found["results"][0]
    assert (first["recommender"], first["regime"], first["offline"], first["seeds"]) == ("x", "real", 1, 2)
    assert first["measures"]["rank_percent"] == {
        "mean": 3.5,
        "se_over_seeds": 0.5,
        "se_over_data_sets": 1.0,
        "minus_y_mean": 0.5,
        "minus_y_se_over_seeds": 0.5,
        "minus_y_se_over_data_sets": 0.0,
    }
    assert first["measures"]["seconds"]["se_over_data_sets"] is None, "JSON has no NaN"
