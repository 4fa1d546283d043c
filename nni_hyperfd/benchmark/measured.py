"""What `trial_code/measure.py` leaves in a folder: a search space's configurations, measured on many data sets.

`settings.json` holds what all trials have in common, `space.json` the search space, `configurations.json` and
`domains.json` what was measured and on which data sets, `trials.csv` a row per trial that has ended.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nni_hyperfd.benchmark.tables import FORMAT, TableError
from nni_hyperfd.space.search_space import Configuration, SearchSpace, SpaceError

KEY = ("domain", "configuration", "seed")
COLUMNS = (*KEY, "val", "test", "epochs", "seconds", "mflops", "device", "status", "reason")
"""val, test: AP@50 of the best validated detector, empty where a trial failed; mflops: empty for a fixed network."""
MEASURED, FAILED = "measured", "failed"
START = "start"
"""Stands for a configuration where the detector that all trials start from was measured as it is."""


class Trial(NamedTuple):
    """One row. val and test are NaN where it failed."""

    domain: str
    configuration: str
    seed: int
    val: float
    test: float
    seconds: float
    row: dict[str, str]

    @property
    def failed(self) -> bool:
        return self.row["status"] == FAILED


@dataclass(frozen=True)
class Measured:
    """A folder of measurements. domains: name -> number of training images (`images`) and of their boxes (`boxes`)."""

    settings: dict[str, Any]
    space: SearchSpace
    configurations: dict[str, Configuration]
    domains: dict[str, dict[str, Any]]
    trials: list[Trial]


def read(folder: Path) -> Measured:
    """Read and check a folder, also while it is being filled.

    Raises TableError, naming the file: it was written by another version, is of another space than it says, or broken.
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
    return Measured(settings, space, configurations, domains, trials)


def read_trials(path: Path) -> list[Trial]:
    """The trials of a table that was made of measurements. Raises TableError, naming the file."""
    try:
        return list(parse(gzip.decompress(path.read_bytes()), path))
    except (OSError, EOFError) as error:
        raise TableError(f"{path} cannot be read: {error}.") from error


def parse(content: bytes, where: Path) -> Iterator[Trial]:
    """The whole lines of a file of trials; of two of the same trial the last one counts."""
    text = content[: content.rfind(b"\n") + 1].decode()
    trials = {}
    for number, row in enumerate(csv.DictReader(io.StringIO(text, newline="")), start=2):
        try:
            val, test, seconds = (float(row[name] or "nan") for name in ("val", "test", "seconds"))
            trial = Trial(row["domain"], row["configuration"], int(row["seed"]), val, test, seconds, row)
            ap_known = 0 <= val <= 1 and 0 <= test <= 1
            if (
                row["status"] not in (MEASURED, FAILED)
                or (row["status"] == MEASURED) != ap_known
                or math.isinf(seconds)
            ):
                raise ValueError(f"status {row['status']!r} with val {val} and test {test}")
        except (KeyError, TypeError, ValueError) as error:
            raise TableError(f"{where}: line {number} of its trials is no row of measurements: {error}.") from error
        trials[trial[:3]] = trial
    yield from trials.values()


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise TableError(f"{path} cannot be read: {error}; name a folder that measure.py has filled.") from error
    if not isinstance(content, dict):
        raise TableError(f"{path} must hold a JSON object.")
    return content
