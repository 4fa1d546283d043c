"""Runs that are on disk: what they were of, and going on after them."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nni_hyperfd.benchmark.protocol import Protocol
from nni_hyperfd.benchmark.report import MEASURES
from nni_hyperfd.benchmark.tables import Table

RUNS, IDENTITY = "runs.csv", "identity.json"


class FinishedError(ValueError):
    """The folder holds runs that these do not go with; the message says which."""


@dataclass(frozen=True)
class Finished:
    """A run as `report` summarises it, read from its line."""

    table: str
    recommender: str
    seed: int
    protocol: Protocol
    values: dict[str, float]
    missing: int

    def measures(self) -> dict[str, float]:
        return self.values


def claim(folder: Path, tables: Sequence[Table], protocol: Protocol) -> None:
    """Note what the folder's runs are of. Raises FinishedError, naming it, for a table or setting that has changed."""
    path = folder / IDENTITY
    digests, settings = {table.name: table.digest for table in tables}, asdict(protocol)
    if path.exists():
        try:
            known = json.loads(path.read_text())
            known_digests, known_settings = dict(known["tables"]), dict(known["protocol"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FinishedError(f"{path} cannot be read ({error!r}); name another folder with --out.") from error
        for name, value in settings.items():
            if known_settings.get(name) != value:
                raise FinishedError(
                    f"{folder} holds runs with {name} {known_settings.get(name)}, not {value}; name another with --out."
                )
        for name, value in digests.items():
            if known_digests.get(name, value) != value:
                raise FinishedError(f"{folder} holds runs on another table {name}; name another folder with --out.")
        digests = known_digests | digests
    elif (folder / RUNS).exists():
        raise FinishedError(f"{folder / RUNS} is of another program; name another folder with --out.")
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"tables": digests, "protocol": settings}, indent=1))
    os.replace(fresh, path)


def read(folder: Path, protocol: Protocol) -> list[Finished]:
    """The folder's finished runs; what a killed run left of its line is cut off. FinishedError for a broken line."""
    path = folder / RUNS
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    lines = csv.DictReader(content[:whole].decode().splitlines())
    try:
        return [
            Finished(
                table=line["table"],
                recommender=line["recommender"],
                seed=int(line["seed"]),
                protocol=protocol,
                values={name: float(line[name]) for name in MEASURES},
                missing=int(line["missing"]),
            )
            for line in lines
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise FinishedError(f"{path} has a line that is no run ({error!r}); name another folder with --out.") from error
