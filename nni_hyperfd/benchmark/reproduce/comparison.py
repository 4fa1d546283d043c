"""Arms beside what the paper prints of them: means, paired differences, and whether the signs agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from nni_hyperfd.benchmark.report import Estimate
from nni_hyperfd.benchmark.reproduce import paper
from nni_hyperfd.benchmark.reproduce.arms import BASELINES, DEFAULT, FULL
from nni_hyperfd.benchmark.reproduce.paper import Printed
from nni_hyperfd.benchmark.reproduce.plan import BUDGET

AGREES, DISAGREES, UNDECIDED = "agrees", "disagrees", "not to be told apart"
SURE = 2.0
"""Number of standard errors that a difference has to exceed before its sign is compared."""


class Comparison(NamedTuple):
    """An arm beside the paper. Our numbers are means with standard errors over seeds and, of Rank%, over data sets.

    Attributes:
        arm: its name.
        first: the gain in AP points, or the NDCG.
        rank_percent: Rank%, in %.
        difference: Rank% minus that of HyperFD, paired.
        printed: the paper's numbers, or None where it has none.
        printed_difference: the paper's Rank% minus that of HyperFD; NaN where it has none.
        verdict: whether the signs agree; empty where there is nothing to compare.
        why: what is behind the verdict.
    """

    arm: str
    first: Estimate
    rank_percent: Estimate
    difference: Estimate
    printed: Printed | None
    printed_difference: float
    verdict: str
    why: str


def per_seed(outcomes: pd.DataFrame, arm: str, budget: int, seeds: int) -> pd.DataFrame:
    """`rank_percent`, the mean over a run's tasks, and `gain`, their sum in AP points, indexed by seed."""
    by_seed = _runs_of(outcomes, arm, budget, seeds).groupby("seed")
    # Rounded, so that runs which picked the same do not differ in the last digit.
    return pd.DataFrame({"rank_percent": by_seed.rank_percent.mean(), "gain": 100 * by_seed.gain.sum()}).round(9)


def per_task(outcomes: pd.DataFrame, arm: str, budget: int, seeds: int) -> pd.Series:
    """The mean Rank% over the seeds, indexed by task."""
    return _runs_of(outcomes, arm, budget, seeds).groupby("task").rank_percent.mean().round(9)


def _runs_of(outcomes: pd.DataFrame, arm: str, budget: int, seeds: int) -> pd.DataFrame:
    """The rows of an arm with a budget and the first seeds."""
    return outcomes[(outcomes.arm == arm) & (outcomes.budget == budget) & (outcomes.seed < seeds)]


def rank_percent(outcomes: pd.DataFrame, arm: str, seeds: int) -> Estimate:
    """The Rank% of an arm."""
    own = per_seed(outcomes, arm, BUDGET, seeds).rank_percent
    return _estimate(own, per_task(outcomes, arm, BUDGET, seeds))


def between(outcomes: pd.DataFrame, arm: str, other: str, seeds: int) -> Estimate:
    """The arm's Rank% minus the other's, paired by seed, and by data set for the error over these."""
    ours, others = (per_seed(outcomes, one, BUDGET, seeds).rank_percent for one in (arm, other))
    ours_by_task, others_by_task = (per_task(outcomes, one, BUDGET, seeds) for one in (arm, other))
    return _estimate(ours - others, ours_by_task - others_by_task)


def _estimate(by_seed: pd.Series, by_task: pd.Series) -> Estimate:
    """The mean over seeds with both errors."""
    return replace(Estimate.of(by_seed.tolist()), over_data_sets=Estimate.of(by_task.tolist()).error)


def compared(
    name: str, space: str, outcomes: pd.DataFrame, seeds: int, ndcg: pd.DataFrame | None = None
) -> list[Comparison]:
    """The rows of one of the paper's Tables 1 to 6, for the arms that have been run.

    Args:
        name: of the table.
        space: hpo or nas.
        outcomes: rows of runs (`runs.outcomes`).
        seeds: number of seeds.
        ndcg: the warm-ups (`warm_ups.warm_ups`), where their NDCG takes the place of the gain.
    """
    printed = {arm: by_space[space] for arm, by_space in paper.TABLES[name].items()}
    result = []
    for arm in BASELINES if name == "Table 1" else printed:
        own = per_seed(outcomes, arm, BUDGET, seeds)
        if own.empty:
            continue
        first = own.gain if ndcg is None else ndcg[ndcg.arm == arm].ndcg
        measures = Estimate.of(first.tolist()), rank_percent(outcomes, arm, seeds)
        difference = between(outcomes, arm, FULL, seeds)
        theirs = printed.get(arm)
        apart = theirs.rank_percent - printed[FULL].rank_percent if theirs else np.nan
        said = verdict(difference, apart) if theirs and arm != FULL else ""
        reason = said and why(difference, apart, len(own))
        result.append(Comparison(arm, *measures, difference, theirs, apart, said, reason))
    return result


def verdict(ours: Estimate, printed: float) -> str:
    """Whether a difference in Rank% has the sign that the paper gives it."""
    if not abs(ours.mean) > SURE * ours.error:
        return UNDECIDED
    return AGREES if ours.mean * printed > 0 else DISAGREES


def why(ours: Estimate, printed: float, seeds: int) -> str:
    """What is behind the verdict, as far as the numbers tell.

    It says how large the difference is beside the paper's and whether the choice of the data sets may explain it; or,
    where it is undecided, how many seeds would show a difference of the paper's size.

    Args:
        ours: our difference in Rank%.
        printed: the paper's difference.
        seeds: number of seeds.
    """
    said = verdict(ours, printed)
    if said != UNDECIDED:
        times = f"{abs(ours.mean / printed):.2g} times as large as in the paper"
        told = times if said == AGREES else f"beyond the chance of seeds, and the other way round; {times}"
        return (
            told if abs(ours.mean) > SURE * ours.over_data_sets else f"{told}; on other data sets it may be different"
        )
    if not ours.error > 0:
        return "the same picks" if ours.error == 0 else "one seed shows no spread"
    needed = seeds * (SURE * ours.error / printed) ** 2
    if needed > seeds:
        return f"chance: a difference as large as the paper's would show from about {int(np.ceil(needed))} seeds on"
    return "smaller than in the paper: a difference as large as there would have shown"


def frame(rows: Sequence[Comparison], first: str) -> pd.DataFrame:
    """The rows as text: our numbers, the paper's, the verdict; first: what the first number is."""
    return pd.DataFrame(
        {
            "": [row.arm for row in rows],
            first: [str(row.first) for row in rows],
            "Rank%": [row.rank_percent.both for row in rows],
            f"− {FULL}": ["" if row.arm == FULL else row.difference.both for row in rows],
            f"paper: {first}": [f"{row.printed.first:g}" if row.printed else "" for row in rows],
            "paper: Rank%": [f"{row.printed.rank_percent:g}" if row.printed else "" for row in rows],
            f"paper: − {FULL}": [f"{row.printed_difference:+.2f}" if row.verdict else "" for row in rows],
            "sign of the difference": [row.verdict for row in rows],
            "why": [row.why for row in rows],
        }
    )


def numbers(rows: Sequence[Comparison], first: str) -> pd.DataFrame:
    """The rows as numbers, for a CSV."""
    columns: dict[str, list[object]] = {"arm": [row.arm for row in rows]}
    for name, estimates in (
        (first, [row.first for row in rows]),
        ("rank_percent", [row.rank_percent for row in rows]),
        ("minus_hyperfd", [row.difference for row in rows]),
    ):
        columns[name] = [estimate.mean for estimate in estimates]
        columns[f"{name}_se"] = [estimate.error for estimate in estimates]
        if name != first:
            columns[f"{name}_se_over_data_sets"] = [estimate.over_data_sets for estimate in estimates]
    columns[f"paper_{first}"] = [row.printed.first if row.printed else np.nan for row in rows]
    columns["paper_rank_percent"] = [row.printed.rank_percent if row.printed else np.nan for row in rows]
    return pd.DataFrame(columns | {"verdict": [row.verdict for row in rows], "why": [row.why for row in rows]})


def statement(rows: Sequence[Comparison]) -> str:
    """What agrees with the paper, what does not, and what is undecided, as a sentence."""
    parts = []
    for kind in (AGREES, DISAGREES, UNDECIDED):
        named = [
            f"{row.arm} ({row.difference}, paper {row.printed_difference:+.2f})" for row in rows if row.verdict == kind
        ]
        if named:
            parts.append(f"{kind}: {'; '.join(named)}")
    return f"{'. '.join(parts)}." if parts else "Nothing to compare."


def goal(rows: Sequence[Comparison], outcomes: pd.DataFrame, seeds: int) -> str:
    """How the default preset compares with the best of all others but HyperFD, in sentences."""
    by_arm = {row.arm: row.rank_percent for row in rows}
    others = {arm: rank for arm, rank in by_arm.items() if arm not in (FULL, DEFAULT)}
    best = min(others, key=lambda arm: others[arm].mean)
    share = by_arm[DEFAULT].mean / others[best].mean
    difference = between(outcomes, DEFAULT, best, seeds)
    return (
        f"The default preset's Rank% is {by_arm[DEFAULT]}, {share:.2f} times that of the best other, {best}"
        f" ({others[best]}); the aim was half. The difference is {difference} over seeds,"
        f" ± {difference.over_data_sets:.2g} over data sets."
    )
