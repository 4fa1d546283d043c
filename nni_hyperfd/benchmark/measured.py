"""Folders of measurements: a search space's configurations, measured on many data sets by `trial_code/measure.py`.

`settings.json` holds what all trials have in common, `space.json` the search space, `configurations.json` and
`domains.json` what was measured and on which data sets, `trials.csv` a row per trial that has ended.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from nni_hyperfd.benchmark.tables import FORMAT, TableError
from nni_hyperfd.space import Configuration, SearchSpace, SpaceError

KEY = ("domain", "configuration", "seed")
COLUMNS = (*KEY, "val", "test", "epochs", "seconds", "mflops", "device", "status", "reason")
"""Columns of `trials.csv`. `val` and `test` are AP@50 in [0, 1] of the best validated detector, empty where a trial
failed; `mflops` is empty for a fixed network."""
MEASURED, FAILED = "measured", "failed"
START = "start"
"""Stands in place of a configuration where the detector that all trials start from was measured as it is."""


class MeasuredTrial(NamedTuple):
    """One row of `trials.csv`.

    Attributes:
        domain: name of the data set.
        configuration: name of the configuration, or `START`.
        seed: of the trial.
        val: AP@50 on the validation split, NaN if the trial failed.
        test: AP@50 on the test split, NaN if the trial failed.
        seconds: duration.
        row: the row itself, by `COLUMNS`.
    """

    domain: str
    configuration: str
    seed: int
    val: float
    test: float
    seconds: float
    row: dict[str, str]

    @property
    def failed(self) -> bool:
        """Whether the trial has no result."""
        return self.row["status"] == FAILED


@dataclass(frozen=True)
class MeasuredFolder:
    """What a folder of measurements holds.

    Attributes:
        settings: what all trials have in common.
        space: the search space.
        configurations: by name.
        domains: by name of the data set, with its numbers of training images (`images`) and of their boxes (`boxes`).
        trials: all that have ended.
    """

    settings: dict[str, Any]
    space: SearchSpace
    configurations: dict[str, Configuration]
    domains: dict[str, dict[str, Any]]
    trials: list[MeasuredTrial]

    def only(self, names: Sequence[str]) -> MeasuredFolder:
        """What was measured on some of the data sets.

        Args:
            names: of the data sets.

        Raises:
            TableError: one of them was not measured.
        """
        if strange := [name for name in names if name not in self.domains]:
            raise TableError(f"{strange[0]} was not measured; there are {', '.join(self.domains)}.")
        domains = {name: about for name, about in self.domains.items() if name in names}
        return replace(self, domains=domains, trials=[trial for trial in self.trials if trial.domain in domains])


def read(folder: Path) -> MeasuredFolder:
    """Read and check a folder, also while it is being filled.

    Raises:
        TableError: naming the file that was written by another version, is of another space than it says, or is broken.
    """
    settings, definition, configurations, domains = (
        _object(folder / f"{name}.json") for name in ("settings", "space", "configurations", "domains")
    )
    if settings.get("format") != FORMAT:
        raise TableError(
            f"{folder / 'settings.json'} is of format {settings.get('format')!r}, this version reads {FORMAT}; use the"
            f" nni-hyperfd that measured it ({settings.get('nni-hyperfd')})."
        )
    try:
        space = SearchSpace.from_nni(definition, settings.get("kind"))
        for name, configuration in configurations.items():
            configurations[name] = space.canonical(configuration)
    except SpaceError as error:
        raise TableError(f"{folder}: its configurations are not of the space in space.json: {error}.") from error
    if settings.get("space") != space.label:
        raise TableError(f"{folder} was measured in the space {settings.get('space')}, not in {space.label}.")
    trials = list(parse((folder / "trials.csv").read_bytes() if (folder / "trials.csv").is_file() else b"", folder))
    for trial in trials:
        if trial.domain not in domains or trial.configuration not in (*configurations, START):
            raise TableError(f"{folder / 'trials.csv'}: {trial.domain}, {trial.configuration} is not described.")
    return MeasuredFolder(settings, space, configurations, domains, trials)


def read_trials(path: Path) -> list[MeasuredTrial]:
    """The trials of a table that was made of measurements.

    Raises:
        TableError: the file cannot be read or has a broken row.
    """
    try:
        return list(parse(gzip.decompress(path.read_bytes()), path))
    except (OSError, EOFError) as error:
        raise TableError(f"{path} cannot be read: {error}.") from error


def parse(content: bytes, where: Path) -> Iterator[MeasuredTrial]:
    """Read the complete lines of a file of trials; of several lines for one trial the last one counts.

    Args:
        content: of the file.
        where: what messages call it.

    Raises:
        TableError: a row is broken.
    """
    text = content[: content.rfind(b"\n") + 1].decode()
    trials: dict[tuple[str, str, int], MeasuredTrial] = {}
    for number, row in enumerate(csv.DictReader(io.StringIO(text, newline="")), start=2):
        try:
            val, test, seconds = (float(row[name] or "nan") for name in ("val", "test", "seconds"))
            trial = MeasuredTrial(row["domain"], row["configuration"], int(row["seed"]), val, test, seconds, row)
            ap_known = 0 <= val <= 1 and 0 <= test <= 1
            if (
                row["status"] not in (MEASURED, FAILED)
                or (row["status"] == MEASURED) != ap_known
                or math.isinf(seconds)
            ):
                raise ValueError(f"status {row['status']!r} with val {val} and test {test}")
        except (KeyError, TypeError, ValueError) as error:
            raise TableError(f"{where}: line {number} of its trials is no row of measurements: {error}.") from error
        trials[trial.domain, trial.configuration, trial.seed] = trial
    yield from trials.values()


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise TableError(f"{path} cannot be read: {error}; name a folder that measure.py has filled.") from error
    if not isinstance(content, dict):
        raise TableError(f"{path} must hold a JSON object.")
    return content
