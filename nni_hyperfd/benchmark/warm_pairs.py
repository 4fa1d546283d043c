"""Makes a warm-up of a table's measurements: results of `trial_code/measure.py` as `hyperfd warmup train` reads them.

    python -m nni_hyperfd.benchmark.warm_pairs MEASURED OUT --server NAME,NAME,...
    hyperfd warmup train OUT --features FEATURES --space SPACE --state STATE

Only the platform's own data sets may go into a warm-up that is compared on the table's other ones. Each pair's result
is the validation AP of the first seed; trials that failed are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nni_hyperfd.benchmark import measured
from nni_hyperfd.benchmark.measured import START, MeasuredFolder, MeasuredTrial
from nni_hyperfd.benchmark.options import listed
from nni_hyperfd.benchmark.tables import TableError
from nni_hyperfd.warmup.collect import PAIRS
from nni_hyperfd.warmup.pairs import PairError, PairFile

EXPERIMENT = "measured"
"""Stands for the NNI experiment that would have measured the pairs."""


def pairs_of(found: MeasuredFolder, server: Sequence[str]) -> list[MeasuredTrial]:
    """The trials that become pairs: of the first seed, on these data sets.

    Raises:
        TableError: a data set was not measured, or there is no result.
    """
    own = found.only(server).trials
    first = [trial for trial in own if trial.seed == found.settings["seed"] and not trial.failed]
    chosen = [trial for trial in first if trial.configuration != START]
    if not chosen:
        raise TableError("None of these data sets has a result; measure on.")
    return chosen


def write(found: MeasuredFolder, server: Sequence[str], path: Path) -> int:
    """Write a new file of pairs.

    Args:
        found: the measurements.
        server: names of the platform's own data sets.
        path: of the file, which must not exist.

    Returns:
        The number of pairs.

    Raises:
        TableError: there is nothing to write, or the file exists.
        PairError: the file cannot be written.
    """
    chosen = pairs_of(found, server)
    if path.exists():
        raise TableError(f"{path} exists; name another folder.")
    path.parent.mkdir(parents=True, exist_ok=True)
    file = PairFile(path)
    file.plan([(trial.domain, found.configurations[trial.configuration]) for trial in chosen])
    file.begin(EXPERIMENT, 0, path.parent)
    for number, trial in enumerate(chosen):  # pairs are claimed in the order of the plan
        file.claim(EXPERIMENT, number)
        file.succeed(EXPERIMENT, number, trial.val)
    return len(chosen)


def main(
    folder: Annotated[Path, typer.Argument(help="Folder that measure.py has filled.", metavar="MEASURED")],
    out: Annotated[Path, typer.Argument(help="Folder for the pairs.")],
    server: Annotated[str, typer.Option(help="The platform's own data sets, separated by commas.")],
) -> None:
    """Make a warm-up of a table's measurements."""
    try:
        count = write(measured.read(folder), listed(server), out / PAIRS)
    except (TableError, PairError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    Console().print(f"{count} pairs: {out / PAIRS}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
