"""Numbers beside the paper's: verdicts by hand, tables against a plain loop, and the printed numbers themselves."""

from __future__ import annotations

import itertools
import math
import statistics
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nni_hyperfd.benchmark.report import Estimate
from nni_hyperfd.benchmark.reproduce import comparison, paper, plan, runs
from nni_hyperfd.benchmark.reproduce.arms import BASELINES, DEFAULT, FULL
from nni_hyperfd.benchmark.reproduce.comparison import AGREES, DISAGREES, UNDECIDED, Comparison, verdict, why

NAN = math.nan


@pytest.mark.parametrize(
    ("mean", "error", "printed", "expected"),
    [
        (3.0, 1.0, 4.1, AGREES),
        (-3.0, 1.0, -0.1, AGREES),
        (3.0, 1.0, -4.1, DISAGREES),
        (-3.0, 1.0, 4.1, DISAGREES),
        (2.0, 1.0, 4.1, UNDECIDED),  # two standard errors are not exceeded
        (2.001, 1.0, 4.1, AGREES),
        (-1.9, 1.0, 4.1, UNDECIDED),
        (0.0, 0.0, 4.1, UNDECIDED),  # all picks were the same
        (0.5, 0.0, 4.1, AGREES),
        (30.0, NAN, 4.1, UNDECIDED),  # one seed
        (NAN, NAN, 4.1, UNDECIDED),
    ],
)
def test_verdicts_by_hand(mean: float, error: float, printed: float, expected: str) -> None:
    assert verdict(Estimate(mean, error), printed) == expected


@pytest.mark.parametrize(
    ("mean", "error", "printed", "expected"),
    [
        (6.0, 1.0, 4.0, "1.5 times as large as in the paper"),
        (-6.0, 1.0, 4.0, "beyond the chance of seeds, and the other way round; 1.5 times as large as in the paper"),
        (1.0, 3.0, 4.0, "chance: a difference as large as the paper's would show from about 12 seeds on"),  # 5 (6/4)^2
        (1.0, 3.0, -4.0, "chance: a difference as large as the paper's would show from about 12 seeds on"),
        (1.0, 1.0, 4.0, "smaller than in the paper: a difference as large as there would have shown"),
        (0.0, 0.0, 4.0, "the same picks"),
        (1.0, NAN, 4.0, "one seed shows no spread"),
    ],
)
def test_reasons_by_hand(mean: float, error: float, printed: float, expected: str) -> None:
    assert why(Estimate(mean, error, 2.0), printed, 5) == expected


@pytest.mark.parametrize("over_data_sets", [3.0, 3.5, NAN])
def test_a_difference_that_few_data_sets_bring_about_is_no_more_than_that(over_data_sets: float) -> None:
    assert why(Estimate(6.0, 1.0, over_data_sets), 4.0, 5) == (
        "1.5 times as large as in the paper; on other data sets it may be different"
    )


def outcomes(arms, seeds=5, tasks=("a", "b", "c"), budgets=(2, 4)) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for arm, budget, seed in itertools.product(arms, budgets, range(seeds)):
        for position, task in enumerate(rng.permutation(tasks)):
            numbers = (position, task, 100 * rng.random(), rng.normal() / 50, 3)
            rows.append(("faces", arm, budget, seed, *numbers))
    return pd.DataFrame(rows, columns=list(runs.COLUMNS)).sample(frac=1, random_state=1)


def slow(frame: pd.DataFrame, arm: str, budget: int, seeds: int) -> tuple[dict, dict]:
    ranks, gains = {}, {}
    for row in frame.to_dict("records"):
        if (row["arm"], row["budget"]) == (arm, budget) and row["seed"] < seeds:
            ranks.setdefault(row["seed"], []).append(row["rank_percent"])
            gains.setdefault(row["seed"], []).append(row["gain"])
    return {s: statistics.mean(v) for s, v in ranks.items()}, {s: 100 * math.fsum(v) for s, v in gains.items()}


def slow_by_task(frame: pd.DataFrame, arm: str, seeds: int) -> dict:
    ranks = {}
    for row in frame.to_dict("records"):
        if (row["arm"], row["budget"]) == (arm, plan.BUDGET) and row["seed"] < seeds:
            ranks.setdefault(row["task"], []).append(row["rank_percent"])
    return {task: statistics.mean(v) for task, v in ranks.items()}


def estimate(values: list[float]) -> tuple[float, float]:
    return statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5


def test_runs_are_averaged_over_their_tasks() -> None:
    frame = outcomes([FULL, "SCoT"])
    for arm, budget, seeds in itertools.product([FULL, "SCoT"], (2, 4), (1, 3, 5, 9)):
        ranks, gains = slow(frame, arm, budget, seeds)
        found = comparison.per_seed(frame, arm, budget, seeds)
        assert found.rank_percent.to_dict() == pytest.approx(ranks, abs=1e-8)
        assert found.gain.to_dict() == pytest.approx(gains, abs=1e-8)
    assert comparison.per_seed(frame, "Oracle", 4, 5).empty


@pytest.mark.parametrize("space", paper.SPACES)
def test_arms_beside_the_paper_against_a_plain_loop(space: str) -> None:
    arms = ["Random search", "SCoT", FULL, DEFAULT, "Oracle"]
    frame = outcomes(arms)
    rows = comparison.compared("Table 1", space, frame, 4)
    assert [row.arm for row in rows] == ["Random search", "SCoT", FULL, DEFAULT], "those of Table 1 that were run"
    full, _ = slow(frame, FULL, plan.BUDGET, 4)
    for row in rows:
        ranks, gains = slow(frame, row.arm, plan.BUDGET, 4)
        assert (row.first.mean, row.first.error) == pytest.approx(estimate(list(gains.values())))
        assert (row.rank_percent.mean, row.rank_percent.error) == pytest.approx(estimate(list(ranks.values())))
        apart = estimate([ranks[seed] - full[seed] for seed in range(4)])
        assert (row.difference.mean, row.difference.error) == pytest.approx(apart, abs=1e-8)
        own, other = slow_by_task(frame, row.arm, 4), slow_by_task(frame, FULL, 4)
        over_data_sets = estimate([own[task] - other[task] for task in own])[1]
        assert row.difference.over_data_sets == pytest.approx(over_data_sets, abs=1e-8)
        assert row.rank_percent.over_data_sets == pytest.approx(estimate(list(own.values()))[1])
    by_arm = {row.arm: row for row in rows}
    assert by_arm[FULL].verdict == "" == by_arm[DEFAULT].verdict == by_arm[FULL].why == by_arm[DEFAULT].why
    assert by_arm[DEFAULT].printed is None and math.isnan(by_arm[DEFAULT].printed_difference)
    difference = {"hpo": 20.83 - 13.16, "nas": 21.30 - 7.78}[space]
    assert by_arm["SCoT"].printed_difference == pytest.approx(difference)
    assert by_arm["SCoT"].verdict == verdict(by_arm["SCoT"].difference, difference)
    assert by_arm["SCoT"].why == why(by_arm["SCoT"].difference, difference, 4)


def test_one_seed_decides_nothing_and_equal_picks_do_not_differ() -> None:
    (random,) = (row for row in comparison.compared("Table 1", "hpo", outcomes(["Random search", FULL]), 1)
                 if row.arm == "Random search")  # fmt: skip
    assert math.isnan(random.difference.error) and random.verdict == UNDECIDED
    frame = outcomes([FULL])
    frame = pd.concat([frame, frame.sample(frac=1, random_state=0).assign(arm="SCoT")])  # summed in another order
    (scot, _) = comparison.compared("Table 1", "hpo", frame, 5)
    assert (scot.difference.mean, scot.difference.error, scot.verdict) == (0, 0, UNDECIDED)


def test_the_ndcg_of_warm_ups_takes_the_place_of_the_gain() -> None:
    labels = "Anchor-level: w/o labels"
    warm = pd.DataFrame([(labels, 0, 0.9, 1.0), (labels, 1, 0.8, 1.0), (FULL, 0, 0.5, 1.0), (FULL, 1, 0.5, 1.0)],
                        columns=["arm", "seed", "ndcg", "seconds"])  # fmt: skip
    one, full = comparison.compared("Table 5", "nas", outcomes([FULL, labels]), 5, warm)
    assert (one.first.mean, one.first.error) == pytest.approx((0.85, 0.05))
    assert (full.first.mean, full.first.error) == (0.5, 0) and one.printed.first == 0.895


def row(arm: str, rank: float, difference: float, verdict: str, printed: float = NAN) -> Comparison:
    known = None if math.isnan(printed) else paper.Printed(1.5, 13.16 + printed)
    measures = Estimate(1, 0.1), Estimate(rank, 1, 2), Estimate(difference, 0.5, 0.7)
    return Comparison(arm, *measures, known, printed, verdict, "why")


ROWS = [
    row("Random search", 20, 10, AGREES, 6.93),
    row("SCoT", 8, -2, DISAGREES, 7.67),
    row("Oracle", 10.5, 0.5, UNDECIDED, 0.63),
    row(FULL, 10, 0, "", 0.0),
    row(DEFAULT, 4, -6, ""),
]


def test_what_is_said_and_shown() -> None:
    assert comparison.statement(ROWS) == (
        "agrees: Random search (10 ± 0.5, paper +6.93). disagrees: SCoT (-2 ± 0.5, paper +7.67)."
        " not to be told apart: Oracle (0.5 ± 0.5, paper +0.63)."
    )
    assert comparison.statement(ROWS[3:]) == "Nothing to compare."
    frame = outcomes(["SCoT", DEFAULT])
    difference = comparison.between(frame, DEFAULT, "SCoT", 3)
    assert comparison.goal(ROWS, frame, 3) == (
        "The default preset's Rank% is 4 ± 1, 0.50 times that of the best other, SCoT (8 ± 1); the aim was half."
        f" The difference is {difference} over seeds, ± {difference.over_data_sets:.2g} over data sets."
    )
    shown = comparison.frame(ROWS, "gain").set_index("")
    assert shown.loc["SCoT"].tolist() == [
        "1 ± 0.1",
        "8.00 ±1.00 ±2.00",
        "-2.00 ±0.50 ±0.70",
        "1.5",
        "20.83",
        "+7.67",
        DISAGREES,
        "why",
    ]
    assert shown.loc[FULL].tolist() == ["1 ± 0.1", "10.00 ±1.00 ±2.00", "", "1.5", "13.16", "", "", "why"]
    assert shown.loc[DEFAULT].tolist() == ["1 ± 0.1", "4.00 ±1.00 ±2.00", "-6.00 ±0.50 ±0.70", "", "", "", "", "why"]
    table = comparison.numbers(ROWS, "gain").set_index("arm")
    assert table.loc["SCoT", ["gain", "gain_se", "minus_hyperfd", "minus_hyperfd_se"]].tolist() == [1, 0.1, -2, 0.5]
    errors = ["rank_percent_se_over_data_sets", "minus_hyperfd_se_over_data_sets"]
    assert table.loc["SCoT", errors].tolist() == [2, 0.7]
    assert table.loc["SCoT", ["paper_gain", "paper_rank_percent"]].tolist() == pytest.approx([1.5, 20.83])
    assert math.isnan(table.loc[DEFAULT, "paper_gain"])


def test_the_printed_numbers_fit_together() -> None:
    assert list(paper.TABLES) == [f"Table {number}" for number in range(1, 7)]
    for name, rows in paper.TABLES.items():
        for arm, by_space in rows.items():
            assert tuple(by_space) == paper.SPACES, (name, arm)
            assert all(0 < by_space[space].rank_percent < 100 for space in paper.SPACES)
        for space in paper.SPACES:
            assert rows[FULL][space].rank_percent == paper.TABLES["Table 1"][FULL][space].rank_percent
            if name == "Table 5":
                assert all(0 < by_space[space].first <= 1 for by_space in rows.values())
            else:
                assert rows[FULL][space] == paper.TABLES["Table 1"][FULL][space]
    assert {name: len(rows) for name, rows in paper.TABLES.items()} == {
        "Table 1": 9, "Table 2": 4, "Table 3": 3, "Table 4": 3, "Table 5": 6, "Table 6": 3
    }  # fmt: skip
    assert set(paper.TABLES["Table 1"]) <= set(BASELINES)


def test_the_printed_numbers_are_those_of_the_text(real_data: Path) -> None:
    """Lines of a name and four numbers; Table 4's have no names."""
    path = real_data.parent / "papers" / "hyperfd.txt"
    if not path.is_file():
        pytest.skip(f"{path} is missing: the paper's text lies beside the real data sets")
    printed = set()
    for line in path.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|") if cell.strip()]
        try:
            numbers = tuple(map(float, cells[-4:]))
        except ValueError:
            continue
        name = cells[0].split(" [")[0] if len(cells) == 5 else ""
        printed.add(("HyperFD" if name == "HyperFD (full)" else name, numbers))
    for name, rows in paper.TABLES.items():
        for arm, by_space in rows.items():
            numbers = (*by_space["hpo"], *by_space["nas"])
            assert ("" if name == "Table 4" else arm, numbers) in printed, (name, arm)
