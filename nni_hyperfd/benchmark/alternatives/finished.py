"""Runs that are on disk: what they belong to, and continuing after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from nni_hyperfd.benchmark.protocol import Protocol
from nni_hyperfd.benchmark.report import COLUMNS, MEASURES, RecommenderRun
from nni_hyperfd.benchmark.tables import Table
from nni_hyperfd.files import FolderError, RowFile, note

RUNS, IDENTITY = "runs.csv", "identity.json"


def open_runs(folder: Path, tables: Sequence[Table], protocol: Protocol) -> RowFile:
    """Open a folder's file of runs, to which runs on these tables can be added.

    Raises:
        FolderError: the folder holds runs of another program, on another table of one of these names, or with another
            protocol.
    """
    path = folder / RUNS
    if path.exists() and not (folder / IDENTITY).exists():
        raise FolderError(f"{path} is of another program; name another folder with --out.")
    note(folder / IDENTITY, {**asdict(protocol), **{f"table {table.name}": table.digest for table in tables}})
    return RowFile(path, COLUMNS)


def read(file: RowFile, protocol: Protocol) -> list[RecommenderRun]:
    """The runs in a file.

    Raises:
        FolderError: a row is no run.
    """
    try:
        return [
            RecommenderRun(
                table=row["table"],
                recommender=row["recommender"],
                seed=int(row["seed"]),
                protocol=protocol,
                measures={name: float(row[name]) for name in MEASURES},
                missing=int(row["missing"]),
            )
            for row in file.rows
        ]
    except ValueError as error:
        raise FolderError(f"{file.path} has a row that is no run ({error}); name another folder with --out.") from error
