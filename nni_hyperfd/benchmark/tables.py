"""Lookup tables: the results of configurations on data sets, measured once and for all.

A table is a folder with these files:

* `performance.npz`: `perf` (tasks, configurations) with NaN where nothing was measured, `tasks`, `configs` (names).
* `configs.csv.gz`: a row per configuration.
* `tasks.csv`: numeric meta-features of each task.
* `meta.json`: `maximize`; `kinds` of the columns (cat, num or log); `graph_ops`; `server`.
* `graphs.npz`, for networks: `ops`, `adj`.
* `features/TASK.safetensors`: a task's image features, for all tasks or for none.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.recommenders import EncodedConfigurations, Task
from nni_hyperfd.space import Graphs

FORMAT = 1
"""Format of tables and measurements; `meta.json` of the first tables names none."""

_KINDS = ("cat", "num", "log")
_T = TypeVar("_T")


class TableError(ValueError):
    """A table's folder does not hold what it should; the message names the file."""


@dataclass(frozen=True, eq=False)
class Table:
    """A table, ready for use.

    Attributes:
        name: of the table.
        tasks: names of the tasks.
        performance: float64 (tasks, configurations), higher is better, NaN = not measured. All of a task's results may
            be the same, or missing.
        configurations: all of them, encoded: `cat` one-hot, `num` and `log` scaled to [0, 1] by the table's range; two
            may be equal.
        meta_features: float32 (tasks, m), NaN = unknown. Of a table with image features a run replaces them by what
            the platform's extractor makes of these (`benchmark.descriptions`).
        server: indices of the tasks that are the server's own data sets (D_off), known before any other; possibly none.
        images: of each task its image features (N, 3, 3, D), as `recommenders.Task` takes them; empty where the table
            has none.
        counts: of each task its numbers of images and boxes (2,); empty where the table has no image features.
        columns: number of entries of a configuration's vector that belong to each parameter, in order: one for a
            number, one per value for a category. Empty where it is not known.

    Raises:
        TableError: fewer than two tasks have a result, so that there is nothing to learn.
    """

    name: str
    tasks: list[str]
    performance: NDArray[np.float64]
    configurations: EncodedConfigurations
    meta_features: NDArray[np.float32]
    server: tuple[int, ...] = ()
    images: tuple[NDArray[np.float32], ...] = ()
    counts: tuple[NDArray[np.float32], ...] = ()
    columns: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if np.isfinite(self.performance).any(axis=1).sum() < 2:
            raise TableError(f"Table {self.name} has results for fewer than two tasks: there is nothing to learn from.")

    def task(self, place: int, budget: int, meta_features: bool = True) -> Task:
        """What is known of a task before its first result.

        Args:
            place: index of the task.
            budget: picks that may be asked for.
            meta_features: whether anything of the data set is told.
        """
        if not meta_features:
            return Task(budget)
        images, counts = (self.images[place], self.counts[place]) if self.images else (None, None)
        meta_feature = self.meta_features[place] if self.meta_features.shape[1] else None
        return Task(budget, meta_feature, images, counts)

    def with_server(self, names: Sequence[str]) -> Table:
        """The same table with these tasks as the server's own.

        Raises:
            TableError: it has no task of one of these names.
        """
        if strange := [name for name in names if name not in self.tasks]:
            raise TableError(
                f"Table {self.name} has no task {strange[0]!r} to be the server's; it has {', '.join(self.tasks)}."
            )
        return replace(self, server=tuple(map(self.tasks.index, names)))

    def measured(self, place: int) -> NDArray[np.int64]:
        """Indices of the configurations that were measured on a task."""
        return np.flatnonzero(np.isfinite(self.performance[place]))

    @property
    def own(self) -> list[int]:
        """Indices of the server's own tasks that have a result, in their order."""
        return [place for place in self.server if len(self.measured(place))]

    @property
    def clients(self) -> list[int]:
        """Indices of the other tasks that have a result."""
        others = (place for place in range(len(self.tasks)) if place not in self.server)
        return [place for place in others if len(self.measured(place))]

    @property
    def digest(self) -> str:
        """SHA-256 of everything that a run on the table depends on; not of its costs and repeated trials."""
        result = hashlib.sha256(repr((self.tasks, self.server, self.columns)).encode())
        graphs = self.configurations.graphs
        arrays: list[NDArray[Any]] = [self.performance, self.configurations.vectors, self.meta_features]
        arrays += [*self.images, *self.counts]
        for array in arrays if graphs is None else [*arrays, graphs.ops, graphs.adjacency]:
            result.update(repr((array.shape, array.dtype)).encode() + np.ascontiguousarray(array).tobytes())
        return result.hexdigest()

    @property
    def missing(self) -> int:
        """Number of results that were not measured."""
        return int(np.isnan(self.performance).sum())

    @property
    def gaps(self) -> str:
        """What was not measured, as a sentence; empty where everything was."""
        missing = np.isnan(self.performance).sum(axis=1)
        if not missing.any():
            return ""
        most = np.argsort(-missing, kind="stable")[:5]
        named = ", ".join(f"{self.tasks[task]} {missing[task]}" for task in most if missing[task])
        more = ", ..." if (missing > 0).sum() > len(most) else ""
        return f"{self.missing} of {self.performance.size} results are missing ({named}{more})."


def load(folder: str | Path) -> Table:
    """Read and check a table.

    Raises:
        TableError: naming the file, for anything that does not fit together.
    """
    folder = Path(folder)
    meta = read_meta(folder)
    maximize = meta.get("maximize", True)
    if not isinstance(maximize, bool):
        raise TableError(f"{folder / 'meta.json'}: maximize must be true or false, got {maximize!r}.")
    tasks, configs, performance = _performance(folder / "performance.npz")
    columns = _columns(folder, meta.get("kinds"), configs)
    vectors = np.concatenate(columns, axis=1).astype(np.float32)
    meta_features = _meta_features(folder / "tasks.csv", tasks)
    graphs = _graphs(folder, meta, len(configs)) if (folder / "graphs.npz").exists() else None
    server = _server(folder, meta.get("server", []), tasks)
    images, counts = _features(folder / "features", tasks)
    return Table(
        name=str(meta.get("name", folder.name)),
        tasks=tasks,
        performance=performance if maximize else -performance,
        configurations=EncodedConfigurations(vectors, graphs),
        meta_features=meta_features,
        server=server,
        images=images,
        counts=counts,
        columns=tuple(column.shape[1] for column in columns),
    )


def load_all(folders: Iterable[str | Path], server: Sequence[str] | None = None) -> list[Table]:
    """Read and check tables of different names.

    Args:
        folders: of the tables.
        server: names of the tasks that are the server's own in each of them; by default those that the tables name.

    Raises:
        TableError: a table cannot be read or has no task of one of these names, or two tables have the same name.
    """
    tables = [load(folder) if server is None else load(folder).with_server(server) for folder in folders]
    if len({table.name for table in tables}) < len(tables):
        raise TableError(f"two tables have the same name: {', '.join(table.name for table in tables)}")
    return tables


def read_meta(folder: Path) -> dict[str, Any]:
    """A table's `meta.json`.

    Raises:
        TableError: it is broken or of another format.
    """
    meta = _read(folder / "meta.json", _object)
    if meta.get("format", FORMAT) != FORMAT:
        raise TableError(
            f"{folder / 'meta.json'}: the table is of format {meta['format']!r}, this version reads {FORMAT}."
        )
    return meta


def _columns(folder: Path, kinds: object, configs: Sequence[str]) -> list[NDArray[np.float64]]:
    """The encoded configurations column by column, (n, width) each, with the columns in the order of `kinds`."""
    rows = _rows(folder / "configs.csv.gz", "config_id", configs)
    named = isinstance(kinds, dict) and kinds and set(kinds) == set(rows[0])
    if not isinstance(kinds, dict) or not named or not all(kind in _KINDS for kind in kinds.values()):
        raise TableError(
            f"{folder / 'meta.json'}: kinds must name every column of configs.csv.gz as cat, num or log, got {kinds}."
        )
    return [_encoded([row[name] for row in rows], kind, f"{folder}: column {name}") for name, kind in kinds.items()]


def _meta_features(path: Path, tasks: Sequence[str]) -> NDArray[np.float32]:
    """(tasks, m), NaN for what is unknown."""
    rows = _rows(path, "task_id", tasks)
    return np.array(
        [[_number(value, f"{path}: {name}") for name, value in row.items()] for row in rows], dtype=np.float32
    )


def _server(folder: Path, server: object, tasks: Sequence[str]) -> tuple[int, ...]:
    """Indices of the server's own tasks."""
    strange = [name for name in server if name not in tasks] if isinstance(server, list) else [server]
    if not isinstance(server, list) or strange:
        raise TableError(f"{folder / 'meta.json'}: server must list tasks of the table, got {strange[0]!r}.")
    return tuple(tasks.index(name) for name in server)


def _performance(path: Path) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """Names of tasks and configurations, and results (tasks, configurations), NaN for what is not finite."""
    arrays = _read(path, _arrays)
    if missing := {"perf", "tasks", "configs"} - set(arrays):
        raise TableError(f"{path} lacks {', '.join(sorted(missing))}.")
    performance, names = arrays["perf"], {key: arrays[key] for key in ("tasks", "configs")}
    for key, values in names.items():
        if values.ndim != 1 or not len(values):
            raise TableError(f"{path}: {key} must be a list of names, got shape {values.shape}.")
        (name, times), *_ = Counter(values.tolist()).most_common(1)
        if times > 1:
            raise TableError(f"{path}: {key} has {name!r} {times} times.")
    tasks, configs = ([str(name) for name in values] for values in names.values())
    if performance.shape != (len(tasks), len(configs)) or performance.dtype.kind not in "fiub":
        raise TableError(
            f"{path}: perf has shape {performance.shape} and type {performance.dtype}, "
            f"there must be a number for each of {len(tasks)} tasks and {len(configs)} configurations."
        )
    performance = performance.astype(float)
    performance[~np.isfinite(performance)] = np.nan
    return tasks, configs, performance


def _graphs(folder: Path, meta: dict[str, Any], n: int) -> Graphs:
    """The architectures of n configurations."""
    arrays = _read(folder / "graphs.npz", _arrays)
    try:
        ops, adjacency, names = arrays["ops"], arrays["adj"], meta["graph_ops"]
        if ops.ndim != 2 or ops.dtype.kind not in "iu" or not isinstance(names, list):
            raise ValueError("ops must be whole numbers, a row per graph, and graph_ops a list of their names")
        if len(ops) != n:
            raise ValueError(f"{len(ops)} graphs for {n} configurations")
        if adjacency.ndim == 2:
            adjacency = np.broadcast_to(adjacency, (len(ops), *adjacency.shape))
        return Graphs(ops.astype(np.int64), adjacency, len(names))
    except (KeyError, ValueError) as error:
        raise TableError(f"{folder / 'graphs.npz'} and graph_ops of meta.json do not fit together: {error}.") from error


def _features(
    folder: Path, tasks: Sequence[str]
) -> tuple[tuple[NDArray[np.float32], ...], tuple[NDArray[np.float32], ...]]:
    """Image features and counts of all tasks, as trial_code/describe.py writes them; nothing without the folder."""
    if not folder.is_dir():
        return (), ()
    from nni_hyperfd.method import features, weights

    found = []
    for task in tasks:
        path = folder / f"{task}.safetensors"
        try:
            found.append([part.numpy() for part in features.unpack(weights.loads(path.read_bytes()))])
        except (OSError, weights.WeightsError) as error:
            raise TableError(f"{path} holds no image features: {error}") from error
    if len(widths := {images.shape[-1] for images, _ in found}) > 1:
        raise TableError(f"{folder}: image features of different detectors, {widths} numbers each; describe all anew.")
    images, counts = zip(*found, strict=True)
    return images, counts


def _encoded(values: Sequence[str], kind: str, where: str) -> NDArray[np.float64]:
    """(n, width): one-hot, or the number scaled to [0, 1] by the column's range; an empty number (inactive) is -0.5."""
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
    """The number; NaN for an empty text or what is not finite."""
    try:
        number = float(text) if text.strip() else np.nan
    except ValueError:
        raise TableError(f"{where}: {text!r} is no number.") from None
    return number if np.isfinite(number) else np.nan


def _rows(path: Path, key: str, names: Sequence[str]) -> list[dict[str, str]]:
    """The file's rows without the key column, in the order of `names`."""

    def read(path: Path) -> list[dict[str | Any, str | Any]]:
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
            return list(csv.DictReader(file, restval=""))

    rows: dict[str, dict[str, str]] = {}
    for row in _read(path, read):
        if key not in row:
            raise TableError(f"{path} has no column {key}.")
        name = row.pop(key)
        if None in row:  # where DictReader puts what has no column
            raise TableError(f"{path}: the row of {name!r} has more values than there are columns.")
        if name in rows:
            raise TableError(f"{path} has two rows whose {key} is {name!r}.")
        rows[name] = row
    if missing := [name for name in names if name not in rows]:
        raise TableError(f"{path} has no row whose {key} is {missing[0]!r}.")
    return [rows[name] for name in names]


def _object(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise ValueError("it must hold a JSON object")
    return content


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no npz archive")
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)


def _read(path: Path, reader: Callable[[Path], _T]) -> _T:
    """What the reader makes of a file, whose errors become a `TableError`."""
    try:
        return reader(path)
    except (OSError, ValueError, EOFError, csv.Error, zipfile.BadZipFile, zlib.error) as error:
        raise TableError(f"{path} cannot be read: {error}.") from error
