"""Arms of runs beside what the paper has printed of them: means, paired differences, and whether their signs agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from nni_hyperfd.benchmark.report import Estimate
from nni_hyperfd.benchmark.reproduce import paper, runs
from nni_hyperfd.benchmark.reproduce.arms import BASELINES, DEFAULT, FULL
from nni_hyperfd.benchmark.reproduce.paper import Printed

AGREES, DISAGREES, UNDECIDED = "agrees", "disagrees", "not to be told apart"
SURE = 2.0
"""Standard errors that a difference has to exceed before anything is said about its sign."""


class Comparison(NamedTuple):
    """An arm beside the paper. Numbers of ours are means over seeds with standard errors, paired for the difference.

    first: the gain in AP points, or the NDCG. difference: Rank% minus that of HyperFD. over_data_sets: the standard
    error of the difference over the data sets instead of the seeds: how far other data sets might move it.
    """

    arm: str
    first: Estimate
    rank_percent: Estimate
    difference: Estimate
    over_data_sets: float
    printed: Printed | None
    printed_difference: float
    verdict: str
    why: str


def per_seed(outcomes: pd.DataFrame, arm: str, budget: int, seeds: int) -> pd.DataFrame:
    """By seed: `rank_percent`, the mean over a run's tasks, and `gain`, their sum in AP points."""
    by_seed = _runs_of(outcomes, arm, budget, seeds).groupby("seed")
    # Rounded, so that runs which picked the same do not differ in the last digit.
    return pd.DataFrame({"rank_percent": by_seed.rank_percent.mean(), "gain": 100 * by_seed.gain.sum()}).round(9)


def per_task(outcomes: pd.DataFrame, arm: str, budget: int, seeds: int) -> pd.Series:
    """By task: the mean Rank% over the seeds."""
    return _runs_of(outcomes, arm, budget, seeds).groupby("task").rank_percent.mean().round(9)


def _runs_of(outcomes: pd.DataFrame, arm: str, budget: int, seeds: int) -> pd.DataFrame:
    return outcomes[(outcomes.arm == arm) & (outcomes.budget == budget) & (outcomes.seed < seeds)]


def between(outcomes: pd.DataFrame, arm: str, other: str, seeds: int) -> tuple[Estimate, float]:
    """Rank% of an arm minus that of another, paired by seed, and the standard error when it is paired by data set."""
    ours, others = (per_seed(outcomes, one, runs.BUDGET, seeds).rank_percent for one in (arm, other))
    ours_by_task, others_by_task = (per_task(outcomes, one, runs.BUDGET, seeds) for one in (arm, other))
    return Estimate.of((ours - others).tolist()), Estimate.of((ours_by_task - others_by_task).tolist()).error


def compared(
    name: str, space: str, outcomes: pd.DataFrame, seeds: int, ndcg: pd.DataFrame | None = None
) -> list[Comparison]:
    """The rows of one of the paper's Tables 1 to 6, for the arms that have been run.

    ndcg: the warm-ups (`runs.warm_ups`), where they take the place of the gain.
    """
    printed = {arm: by_space[space] for arm, by_space in paper.TABLES[name].items()}
    result = []
    for arm in BASELINES if name == "Table 1" else printed:
        own = per_seed(outcomes, arm, runs.BUDGET, seeds)
        if own.empty:
            continue
        first = own.gain if ndcg is None else ndcg[ndcg.arm == arm].ndcg
        ours = [Estimate.of(values.tolist()) for values in (first, own.rank_percent)]
        difference, over_data_sets = between(outcomes, arm, FULL, seeds)
        theirs = printed.get(arm)
        apart = theirs.rank_percent - printed[FULL].rank_percent if theirs else np.nan
        said = verdict(difference, apart) if theirs and arm != FULL else ""
        reason = said and why(difference, over_data_sets, apart, len(own))
        result.append(Comparison(arm, *ours, difference, over_data_sets, theirs, apart, said, reason))
    return result


def verdict(ours: Estimate, printed: float) -> str:
    """Whether a difference in Rank% has the sign that the paper gives it."""
    if not abs(ours.mean) > SURE * ours.error:
        return UNDECIDED
    return AGREES if ours.mean * printed > 0 else DISAGREES


def why(ours: Estimate, over_data_sets: float, printed: float, seeds: int) -> str:
    """What is behind the verdict, as far as the numbers tell: how large the difference is beside the paper's and
    whether it is more than the choice of the data sets explains, or how many seeds would show one of that size, at the
    spread that these seeds have."""
    said = verdict(ours, printed)
    if said != UNDECIDED:
        times = f"{abs(ours.mean / printed):.2g} times as large as in the paper"
        told = times if said == AGREES else f"beyond the chance of seeds, and the other way round; {times}"
        return told if abs(ours.mean) > SURE * over_data_sets else f"{told}; on other data sets it may be different"
    if not ours.error > 0:
        return "the same picks" if ours.error == 0 else "one seed shows no spread"
    needed = seeds * (SURE * ours.error / printed) ** 2
    if needed > seeds:
        return f"chance: a difference as large as the paper's would show from about {int(np.ceil(needed))} seeds on"
    return "smaller than in the paper: a difference as large as there would have shown"


def frame(rows: Sequence[Comparison], first: str) -> pd.DataFrame:
    """As it is read: ours, the paper's, the verdict."""
    return pd.DataFrame(
        {
            "": [row.arm for row in rows],
            first: [str(row.first) for row in rows],
            "Rank%": [str(row.rank_percent) for row in rows],
            f"− {FULL}": ["" if row.arm == FULL else str(row.difference) for row in rows],
            "± over data sets": ["" if row.arm == FULL else f"± {row.over_data_sets:.2g}" for row in rows],
            f"paper: {first}": [f"{row.printed.first:g}" if row.printed else "" for row in rows],
            "paper: Rank%": [f"{row.printed.rank_percent:g}" if row.printed else "" for row in rows],
            f"paper: − {FULL}": [f"{row.printed_difference:+.2f}" if row.verdict else "" for row in rows],
            "sign of the difference": [row.verdict for row in rows],
            "why": [row.why for row in rows],
        }
    )


def numbers(rows: Sequence[Comparison], first: str) -> pd.DataFrame:
    """The same for a CSV."""
    columns = {"arm": [row.arm for row in rows]}
    for name, of in (
        (first, lambda row: row.first),
        ("rank_percent", lambda row: row.rank_percent),
        ("minus_hyperfd", lambda row: row.difference),
    ):
        columns |= {name: [of(row).mean for row in rows], f"{name}_se": [of(row).error for row in rows]}
    columns["minus_hyperfd_se_over_data_sets"] = [row.over_data_sets for row in rows]
    columns[f"paper_{first}"] = [row.printed.first if row.printed else np.nan for row in rows]
    columns["paper_rank_percent"] = [row.printed.rank_percent if row.printed else np.nan for row in rows]
    return pd.DataFrame(columns | {"verdict": [row.verdict for row in rows], "why": [row.why for row in rows]})


def statement(rows: Sequence[Comparison]) -> str:
    """What agrees with the paper, what does not, and what cannot be told."""
    parts = []
    for kind in (AGREES, DISAGREES, UNDECIDED):
        named = [
            f"{row.arm} ({row.difference}, paper {row.printed_difference:+.2f})" for row in rows if row.verdict == kind
        ]
        if named:
            parts.append(f"{kind}: {'; '.join(named)}")
    return f"{'. '.join(parts)}." if parts else "Nothing to compare."


def goal(rows: Sequence[Comparison], outcomes: pd.DataFrame, seeds: int) -> str:
    """How the default preset stands to the best of all others but HyperFD."""
    by_arm = {row.arm: row.rank_percent for row in rows}
    others = {arm: rank for arm, rank in by_arm.items() if arm not in (FULL, DEFAULT)}
    best = min(others, key=lambda arm: others[arm].mean)
    share = by_arm[DEFAULT].mean / others[best].mean
    difference, over_data_sets = between(outcomes, DEFAULT, best, seeds)
    return (
        f"The default preset's Rank% is {by_arm[DEFAULT]}, {share:.2f} times that of the best other, {best}"
        f" ({others[best]}); the aim was half. The difference is {difference} over seeds, ± {over_data_sets:.2g} over"
        " data sets."
    )
