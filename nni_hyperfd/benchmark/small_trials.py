"""Whether small trials speak for large ones: the same configurations and data sets, measured at two scales.

    python -m nni_hyperfd.benchmark.small_trials SMALL LARGE [--out FOLDER]

SMALL and LARGE are folders that `trial_code/measure.py` has filled with trials of different sizes, such as 3 epochs at
128 pixels and 8 epochs at 224. For each data set that both have, over the configurations that both have with the first
seed, the program writes a row of small_trials.csv and prints it: how alike the two rank the configurations, and how
good the configurations that are best in small trials are in large ones.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table as Printed
from scipy.stats import rankdata

from nni_hyperfd.benchmark import measured
from nni_hyperfd.benchmark.measured import START, MeasuredFolder
from nni_hyperfd.benchmark.report import Estimate
from nni_hyperfd.benchmark.spread import rank_correlation
from nni_hyperfd.benchmark.tables import TableError
from nni_hyperfd.files import write_text

MOST = 4
"""Picks of the larger budget, the paper's."""


@dataclass(frozen=True)
class Transfer:
    """One data set; NaN for what is not known. Ranks are by validation AP.

    Attributes:
        domain: name of the data set.
        configurations: number n of configurations measured at both scales.
        correlation: Spearman's correlation of both scales.
        correlation_test: the same on the test split.
        agreement: Spearman's correlation of validation and test AP of the large trials, which is about as high as
            `correlation` can be expected to be.
        first: Rank% among the large trials of the configuration that is best in small trials.
        best_of_four: Rank% of the best of the four that are best in small trials.
        chance: expected Rank% of one random configuration.
        chance_of_four: expected Rank% of the best of four random ones.
        lost: AP that the large trials lose by the best of those four, from the best of all.
    """

    domain: str
    configurations: int
    correlation: float
    correlation_test: float
    agreement: float
    first: float
    best_of_four: float
    chance: float
    chance_of_four: float
    lost: float


def transfer(
    domain: str, small: tuple[NDArray[np.float64], NDArray[np.float64]], large: tuple[NDArray[np.float64], ...]
) -> Transfer:
    """Compare both scales on one data set.

    Args:
        domain: name of the data set.
        small: validation and test AP of the small trials, (n,) each.
        large: the same of the large ones, with the configurations in the same order.
    """
    order = np.argsort(-small[0], kind="stable")
    count, ranks = len(order), rankdata(-large[0])  # equal results share a rank, as no seed breaks ties here
    picks = order[:MOST]
    return Transfer(
        domain=domain,
        configurations=count,
        correlation=rank_correlation(small[0], large[0]),
        correlation_test=rank_correlation(small[1], large[1]),
        agreement=rank_correlation(large[0], large[1]),
        first=100 * float(ranks[picks[0]]) / count,
        best_of_four=100 * float(ranks[picks].min()) / count,
        chance=100 * (count + 1) / 2 / count,
        chance_of_four=100 * (count + 1) / (len(picks) + 1) / count,
        lost=float(large[0].max() - large[0][picks].max()),
    )


def transfers(small: MeasuredFolder, large: MeasuredFolder) -> list[Transfer]:
    """Compare both scales on every data set that both have, in the order of the large one.

    Raises:
        TableError: the folders are of different spaces, name different configurations or data sets alike, or have
            nothing in common.
    """
    _check(small, large)
    few, many = _first_seed(small), _first_seed(large)
    found = []
    for domain in large.domains:
        both = [name for name in large.configurations if (domain, name) in few and (domain, name) in many]
        if both:
            sides = [tuple(np.array([known[domain, name] for name in both]).T) for known in (few, many)]
            found.append(transfer(domain, (sides[0][0], sides[0][1]), sides[1]))
    if not found:
        raise TableError("The two folders have no configuration on the same data set in common; measure on.")
    return found


def _check(small: MeasuredFolder, large: MeasuredFolder) -> None:
    """Raise a TableError if names mean different things in the two folders."""
    if small.space.label != large.space.label:
        raise TableError(
            f"The small trials are of the space {small.space.label}, the large ones of {large.space.label}."
        )
    own: Sequence[tuple[str, Mapping[str, object], Mapping[str, object]]] = (
        ("configuration", small.configurations, large.configurations),
        ("data set", small.domains, large.domains),
    )
    for kind, few, many in own:
        if other := [name for name in many if name in few and few[name] != many[name]]:
            raise TableError(f"The {kind} {other[0]} is not the same in both folders; measure both on the same ones.")


def _first_seed(folder: MeasuredFolder) -> dict[tuple[str, str], tuple[float, float]]:
    """Validation and test AP by data set and configuration."""
    return {
        (trial.domain, trial.configuration): (trial.val, trial.test)
        for trial in folder.trials
        if trial.seed == folder.settings["seed"] and trial.configuration != START and not trial.failed
    }


def statement(found: Sequence[Transfer]) -> str:
    """The means over the data sets with their standard errors, in one sentence."""

    def mean(name: str) -> str:
        values = np.array([getattr(one, name) for one in found])
        known = values[np.isfinite(values)]
        if len(known) == 0:
            return "unknown"
        if np.ptp(known) == 0:
            return f"{known[0]:.3g}"
        return str(Estimate.of(known.tolist()))

    return (
        f"Means over {len(found)} data sets: rank correlation of small and large trials {mean('correlation')} (test"
        f" {mean('correlation_test')}; validation and test of large ones {mean('agreement')}); Rank% among large trials"
        f" of the best small one {mean('first')} (chance {mean('chance')}), of the best of four {mean('best_of_four')}"
        f" (chance {mean('chance_of_four')}), which is an AP of {mean('lost')} below the best."
    )


def main(
    small: Annotated[Path, typer.Argument(help="Folder of small trials.", metavar="SMALL")],
    large: Annotated[Path, typer.Argument(help="Folder of large trials.", metavar="LARGE")],
    out: Annotated[Path, typer.Option(help="Folder for small_trials.csv.")] = Path("small_trials"),
) -> None:
    """Whether small trials speak for large ones."""
    try:
        found = transfers(measured.read(small), measured.read(large))
        out.mkdir(parents=True, exist_ok=True)
    except (TableError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    names = [field.name for field in fields(Transfer)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, found))
    write_text(out / "small_trials.csv", text.getvalue())
    shown = Printed("", *(one.domain for one in found), box=SIMPLE)
    for name in names[1:]:
        shown.add_row(name.replace("_", " "), *(f"{getattr(one, name):.3g}" for one in found))
    console = Console()
    console.print(shown)
    console.print(statement(found), highlight=False, markup=False)


if __name__ == "__main__":
    typer.run(main)
