"""Runs, done and kept on disk: a row per scored task of a run, from which everything that is reported follows."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from nni_hyperfd.benchmark.protocol import Outcome, Protocol, course, run
from nni_hyperfd.benchmark.regime import Regime
from nni_hyperfd.benchmark.tables import Table
from nni_hyperfd.files import FolderError, RowFile, note
from nni_hyperfd.recommenders import Recommender

FILE, IDENTITY = "outcomes.csv", "identity.json"
_RUN = ("table", "missing", "recommender", "seed", *(field.name for field in fields(Protocol)), "seconds", "tasks")
_TASK = ("position", "task", "rank_percent", "gain", "ndcg", "regret", "rank_percents", "picks")
COLUMNS = (*_RUN, *_TASK)
"""Columns of a file of runs. `tasks` is the number of scored tasks of the run, `rank_percent` is Rank% after the last
pick; `rank_percents` has it after each pick and `picks` the picks' indices in the table, both separated by spaces."""


@dataclass(frozen=True)
class RecommenderRun:
    """One recommender's run over the tasks of one table with one seed.

    Attributes:
        table: name of the table.
        recommender: name of the recommender.
        seed: of the run.
        protocol: how the run went, with the number of offline data sets that there were.
        outcomes: of the scored tasks, in order.
        seconds: duration of the run, learning included.
        missing: number of results that the table does not have.
    """

    table: str
    recommender: str
    seed: int
    protocol: Protocol
    outcomes: tuple[Outcome, ...]
    seconds: float
    missing: int = 0

    @property
    def key(self) -> tuple[str, str, int, Protocol]:
        """What tells runs of a folder apart."""
        return self.table, self.recommender, self.seed, self.protocol

    @property
    def rows(self) -> Iterator[dict[str, object]]:
        """A row of `COLUMNS` for each scored task."""
        run = {"table": self.table, "missing": self.missing, "recommender": self.recommender, "seed": self.seed}
        run |= {name: "" if value is None else value for name, value in asdict(self.protocol).items()}
        run["regime"] = self.protocol.regime.value
        run |= {"seconds": round(self.seconds, 3), "tasks": len(self.outcomes)}
        for one in self.outcomes:
            last = {"rank_percent": one.rank_percent[-1]}
            listed = {"rank_percents": _joined(one.rank_percent), "picks": _joined(one.picks)}
            yield run | asdict(one) | listed | last


class Wanted(NamedTuple):
    """A run that is to be there.

    Attributes:
        table: where the tasks come from.
        protocol: how it goes, on this table (`Protocol.on`).
        name: of the recommender.
        make: makes the recommender, given the seed.
        seed: of the recommender and of the run.
    """

    table: Table
    protocol: Protocol
    name: str
    make: Callable[[int], Recommender]
    seed: int

    @property
    def key(self) -> tuple[str, str, int, Protocol]:
        """What tells runs of a folder apart."""
        return self.table.name, self.name, self.seed, self.protocol

    def do(self) -> RecommenderRun:
        """Do the run."""
        course(self.table, self.protocol, self.seed)  # so that the first recommender's time is not that of the warm-up
        begin = time.perf_counter()
        outcomes = tuple(run(self.table, self.protocol, self.make, self.seed))
        return RecommenderRun(*self.key, outcomes, time.perf_counter() - begin, self.table.missing)


def all_of(wanted: Sequence[Wanted], file: RowFile, console: Console) -> list[RecommenderRun]:
    """All wanted runs, in their order; those that the file does not have are done, with a progress bar, and added.

    Raises:
        FolderError: a row of the file is no part of a run.
    """
    there = {found.key: found for found in read(file)}
    bar = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn(), console=console)
    with bar:
        progress = bar.add_task("", total=len(wanted))
        for one in wanted:
            bar.update(progress, description=f"{one.table.name}, budget {one.protocol.budget}, {one.name}")
            if one.key not in there:
                there[one.key] = one.do()
                for row in there[one.key].rows:
                    file.add(row)
            bar.advance(progress)
    return [there[one.key] for one in wanted]


def open_runs(folder: Path, tables: Iterable[Table]) -> RowFile:
    """Open a folder's file of runs, to which runs on these tables can be added.

    Raises:
        FolderError: the folder holds runs of another program or version, or on another table of one of these names.
    """
    path = folder / FILE
    if path.exists() and not (folder / IDENTITY).exists():
        raise FolderError(f"{path} is of another program; name another folder with --out.")
    digests = {f"table {table.name}": table.digest for table in tables}
    note(folder / IDENTITY, {"nni-hyperfd": version("nni-hyperfd"), **digests})
    return RowFile(path, COLUMNS)


def read(file: RowFile) -> list[RecommenderRun]:
    """The runs in a file that have ended; of one that was done again after a kill, the later rows count.

    Raises:
        FolderError: a row is no part of a run.
    """
    rows: dict[Hashable, dict[int, Mapping[str, str]]] = {}
    try:
        for row in file.rows:
            key = (row["table"], row["recommender"], row["seed"], _protocol(row))
            rows.setdefault(key, {})[int(row["position"])] = row
        return [_run(list(own.values())) for own in rows.values() if len(own) == int(next(iter(own.values()))["tasks"])]
    except (KeyError, ValueError) as error:
        raise FolderError(f"{file.path} has a row that is no run ({error}); name another folder with --out.") from error


def _run(rows: Sequence[Mapping[str, str]]) -> RecommenderRun:
    """The run of these rows."""
    outcomes = tuple(
        Outcome(
            position=int(row["position"]),
            task=row["task"],
            picks=tuple(map(int, row["picks"].split())),
            rank_percent=tuple(map(float, row["rank_percents"].split())),
            gain=float(row["gain"]),
            ndcg=float(row["ndcg"]),
            regret=float(row["regret"]),
        )
        for row in rows
    )
    own, numbers = rows[0], (float(rows[0]["seconds"]), int(rows[0]["missing"]))
    return RecommenderRun(own["table"], own["recommender"], int(own["seed"]), _protocol(own), outcomes, *numbers)


def _protocol(row: Mapping[str, str]) -> Protocol:
    """The protocol of a row."""
    return Protocol(
        regime=Regime(row["regime"]),
        meta_features=row["meta_features"] == str(True),
        noise=float(row["noise"]) if row["noise"] else None,
        **{name: int(row[name]) for name in ("offline", "max_tasks", "candidates", "budget", "concurrency")},
    )


def _joined(values: Iterable[float]) -> str:
    """Numbers, separated by spaces."""
    return " ".join(map(repr, values))
