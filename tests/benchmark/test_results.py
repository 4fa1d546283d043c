"""Runs on disk: what is read back is what was written, and a kill costs no more than the run it came into."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from nni_hyperfd.benchmark.protocol import Protocol
from nni_hyperfd.benchmark.regime import Regime
from nni_hyperfd.benchmark.results import COLUMNS, FILE, IDENTITY, Wanted, all_of, open_runs, read
from nni_hyperfd.benchmark.tables import Table
from nni_hyperfd.files import FolderError, RowFile
from nni_hyperfd.recommenders.simple import RandomSearch
from nni_hyperfd.space.encoded import EncodedConfigurations

PROTOCOLS = (
    Protocol(budget=3),
    Protocol(Regime.COLD, max_tasks=5, candidates=10, budget=2, concurrency=2, meta_features=False),
    Protocol(Regime.REVEALED, offline=2),
)


def table(shift: float = 0.0) -> Table:
    rng = np.random.default_rng(0)
    performance = rng.random((5, 20)) + shift
    performance[2, 3] = np.nan
    names = [f"t{place}" for place in range(5)]
    return Table("toy", names, performance, EncodedConfigurations(rng.random((20, 2), np.float32)), np.zeros((5, 1)))


def wanted(own: Table, seeds: int = 2) -> list[Wanted]:
    return [
        Wanted(own, protocol.on(own), "random", RandomSearch, seed) for protocol in PROTOCOLS for seed in range(seeds)
    ]


@pytest.fixture
def console() -> Console:
    return Console(quiet=True)


def test_what_is_read_is_what_was_written(tmp_path: Path, console: Console) -> None:
    own = table()
    done = all_of(wanted(own), open_runs(tmp_path, [own]), console)
    assert [len(run.outcomes) for run in done] == [4, 4, 5, 5, 3, 3]
    found = read(RowFile(tmp_path / FILE, COLUMNS))
    for one, other in zip(found, done, strict=True):
        assert one.key == other.key and one.outcomes == other.outcomes and one.missing == 1
        assert one.seconds == pytest.approx(other.seconds, abs=1e-3)
    assert all(row["regime"] in ("real", "cold", "revealed") for row in RowFile(tmp_path / FILE, COLUMNS).rows)


def test_it_goes_on_after_a_kill_at_any_place(tmp_path: Path, console: Console) -> None:
    own = table()
    file = open_runs(tmp_path, [own])
    whole = all_of(wanted(own), file, console)
    content = file.path.read_bytes()
    for kept in (len(content) - 1, len(content) - 200, content.index(b"\n", 900) + 1, 30, 0):
        file.path.write_bytes(content[:kept])
        again = all_of(wanted(own), open_runs(tmp_path, [own]), console)
        assert [(run.key, run.outcomes) for run in again] == [(run.key, run.outcomes) for run in whole], kept
        assert len(read(RowFile(file.path, COLUMNS))) == len(whole)


def test_what_is_there_is_not_done_again(tmp_path: Path, console: Console) -> None:
    own = table()
    all_of(wanted(own, seeds=1), open_runs(tmp_path, [own]), console)
    begun = []

    def make(seed: int) -> RandomSearch:
        begun.append(seed)
        return RandomSearch(seed)

    more = [one._replace(make=make) for one in wanted(own, seeds=2)]
    assert [run.seed for run in all_of(more, open_runs(tmp_path, [own]), console)] == [0, 1] * len(PROTOCOLS)
    assert begun == [1] * len(PROTOCOLS)


def test_folders_of_others_are_refused_by_name(tmp_path: Path, console: Console) -> None:
    own = table()
    file = open_runs(tmp_path, [own])
    all_of(wanted(own), file, console)
    with pytest.raises(FolderError, match="identity.json: table toy was"):
        open_runs(tmp_path, [table(shift=1.0)])
    identity = json.loads((tmp_path / IDENTITY).read_text())
    (tmp_path / IDENTITY).write_text(json.dumps(identity | {"nni-hyperfd": "0.0.0"}))
    with pytest.raises(FolderError, match="nni-hyperfd was"):
        open_runs(tmp_path, [own])
    (tmp_path / IDENTITY).unlink()
    with pytest.raises(FolderError, match="is of another program"):
        open_runs(tmp_path, [own])
    file.path.write_text(file.path.read_text().replace(",real,", ",kind,"))
    with pytest.raises(FolderError, match="has a row that is no run"):
        read(RowFile(file.path, COLUMNS))
