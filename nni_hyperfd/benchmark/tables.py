"""Lookup tables: what configurations brought on data sets, measured once and for all.

A table is a folder: `performance.npz` (`perf` (tasks, configurations) with NaN where nothing was measured, `tasks`,
`configs`), `configs.csv.gz` (a row per configuration), `tasks.csv` (numeric meta-features per task), `meta.json`
(`maximize`; `kinds` of the columns: cat, num or log; `graph_ops`) and, for networks, `graphs.npz` (`ops`, `adj`).
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nni_hyperfd.ranker.graphs import Graphs
from nni_hyperfd.recommenders.base import Candidates


class TableError(ValueError):
    """A table's folder does not hold what it should; the message names the file."""


@dataclass(frozen=True, eq=False)
class Table:
    """A table, ready for use.

    performance: float64 (tasks, configurations), higher is better, NaN = not measured.
    configurations: all of them, encoded: `cat` one-hot, `num` and `log` scaled to [0, 1] by the table's range.
    meta_features: float32 (tasks, m), NaN = unknown.
    """

    name: str
    tasks: list[str]
    performance: np.ndarray
    configurations: Candidates
    meta_features: np.ndarray


def load(folder: str | Path) -> Table:
    """Read and check a table. Raises TableError, naming the file, for anything that does not fit together."""
    folder = Path(folder)
    meta = _read(folder / "meta.json", lambda path: json.loads(path.read_text()))
    arrays = _read(folder / "performance.npz", _arrays)
    if missing := {"perf", "tasks", "configs"} - set(arrays):
        raise TableError(f"{folder / 'performance.npz'} lacks {', '.join(sorted(missing))}.")
    performance = arrays["perf"].astype(float)
    tasks, configs = ([str(name) for name in arrays[key]] for key in ("tasks", "configs"))
    if performance.shape != (len(tasks), len(configs)):
        raise TableError(
            f"{folder / 'performance.npz'}: perf has shape {performance.shape}, "
            f"there are {len(tasks)} tasks and {len(configs)} configurations."
        )
    performance[~np.isfinite(performance)] = np.nan
    if not meta.get("maximize", True):
        performance = -performance

    rows = _rows(folder / "configs.csv.gz", "config_id", configs)
    kinds = meta.get("kinds", {})
    if not kinds or set(kinds) != set(rows[0]) or not set(kinds.values()) <= {"cat", "num", "log"}:
        raise TableError(
            f"{folder / 'meta.json'}: kinds must name every column of configs.csv.gz as cat, num or log, got {kinds}."
        )
    columns = [_encoded([row[name] for row in rows], kind, f"{folder}: column {name}") for name, kind in kinds.items()]
    vectors = np.concatenate(columns, axis=1).astype(np.float32)

    described = _rows(folder / "tasks.csv", "task_id", tasks)
    meta_features = np.array(
        [[_number(value, f"{folder / 'tasks.csv'}: {name}") for name, value in row.items()] for row in described],
        dtype=np.float32,
    ).reshape(len(tasks), -1)
    graphs = _graphs(folder, meta, len(configs)) if (folder / "graphs.npz").exists() else None
    return Table(meta.get("name", folder.name), tasks, performance, Candidates(vectors, graphs), meta_features)


def _graphs(folder: Path, meta: dict[str, Any], n: int) -> Graphs:
    arrays = _read(folder / "graphs.npz", _arrays)
    try:
        ops, adjacency = arrays["ops"], arrays["adj"]
        if adjacency.ndim == 2:
            adjacency = np.broadcast_to(adjacency, (len(ops), *adjacency.shape))
        if len(ops) != n:
            raise ValueError(f"{len(ops)} graphs for {n} configurations")
        return Graphs(ops.astype(np.int64), adjacency, len(meta["graph_ops"]))
    except (KeyError, ValueError) as error:
        raise TableError(f"{folder / 'graphs.npz'} and graph_ops of meta.json do not fit together: {error}.") from error


def _encoded(values: list[str], kind: str, where: str) -> np.ndarray:
    """(n, width): one-hot, or the number's place in the column's range; an inactive number is -0.5, outside of it."""
    if kind == "cat":
        names = sorted(set(values))
        return np.array([[value == name for name in names] for value in values], dtype=float)
    numbers = np.array([_number(value, where) for value in values])
    if kind == "log":
        if (numbers <= 0).any():
            raise TableError(f"{where} is of kind log but holds a number that is not positive.")
        numbers = np.log(numbers)
    active = ~np.isnan(numbers)
    if not active.any():
        return np.zeros((len(values), 1))
    low, high = numbers[active].min(), numbers[active].max()
    scaled = (numbers - low) / (high - low) if high > low else np.where(active, 0.0, np.nan)
    return np.where(active, scaled, -0.5)[:, None]


def _number(text: str, where: str) -> float:
    try:
        number = float(text) if text.strip() else np.nan
    except ValueError:
        raise TableError(f"{where}: {text!r} is no number.") from None
    return number if np.isfinite(number) else np.nan


def _rows(path: Path, key: str, names: list[str]) -> list[dict[str, str]]:
    """The file's rows without the key column, in the order of `names`."""

    def read(path: Path) -> Iterable[dict[str, str]]:
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
            return list(csv.DictReader(file, restval=""))

    rows = {row.pop(key, None): row for row in _read(path, read)}
    if missing := [name for name in names if name not in rows]:
        raise TableError(f"{path} has no row whose {key} is {missing[0]!r}.")
    return [rows[name] for name in names]


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _read(path: Path, reader: Any) -> Any:
    try:
        return reader(path)
    except (OSError, ValueError, EOFError, csv.Error) as error:
        raise TableError(f"{path} cannot be read: {error}.") from error
