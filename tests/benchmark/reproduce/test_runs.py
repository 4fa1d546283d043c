"""Runs: what is planned, what a run says, and that a kill costs no more than the run it came into."""

from __future__ import annotations

import contextlib
import itertools
import math
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from nni_hyperfd.benchmark import tables
from nni_hyperfd.benchmark.reproduce import runs
from nni_hyperfd.benchmark.reproduce.arms import ARMS, DEFAULT, FULL, OVER_BUDGETS
from nni_hyperfd.benchmark.reproduce.runs import BUDGET, BUDGETS, COLUMNS, Job
from nni_hyperfd.benchmark.server import offline, run_of
from nni_hyperfd.benchmark.tables import TableError
from nni_hyperfd.method import weights

RANDOM = "Random search"


def run_all(folders: list[Path], out: Path) -> None:
    runs.run_all(folders, out, 2, 2, 1, lambda these, **_: these)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Three quick runs of each table, in this process. Gives what has really been run."""
    done, do_run = [], runs.do_run
    monkeypatch.setattr(runs, "jobs", lambda folder, *_: [Job(folder, RANDOM, BUDGET, seed) for seed in range(3)])
    monkeypatch.setattr(runs, "ProcessPoolExecutor", lambda processes, *_: ThreadPoolExecutor(processes))
    monkeypatch.setattr(runs, "do_run", lambda job, start: done.append(job) or do_run(job, start))
    return done


def test_everything_is_planned_once_and_seed_by_seed(folder: Path) -> None:
    planned = runs.jobs(folder, seeds=3, orders=5)
    assert len(planned) == len(set(planned))
    expected = {(arm, BUDGET, seed) for arm in ARMS for seed in range(3)}
    expected |= {(arm, budget, seed) for arm in OVER_BUDGETS for budget in BUDGETS for seed in range(3)}
    expected |= {(arm, BUDGET, seed) for arm in (RANDOM, FULL, DEFAULT) for seed in (3, 4)}
    assert {job[1:] for job in planned} == expected and {job.table for job in planned} == {folder}
    seeds = [job.seed for job in planned]
    assert seeds == sorted(seeds), "stopped early, all arms have about as many seeds"
    assert {job[1:] for job in runs.jobs(folder, seeds=3, orders=2)} == {job for job in expected if job[2] < 3}


def test_tables_that_show_nothing_are_refused(make, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"bare names no data sets of the server's own; make it .* --server"):
        runs.jobs(make(tmp_path / "bare", server=(), clients=("mask", "toon")), 2, 2)
    with pytest.raises(TableError, match="few has fewer than two data sets beside the server's own"):
        runs.jobs(make(tmp_path / "few", clients=("toon",)), 2, 2)


def test_a_budget_for_all_candidates_finds_the_best_of_every_data_set(folder: Path) -> None:
    table = tables.load(folder)
    rows = runs.do_run(Job(folder, RANDOM, 10, 7), None)
    assert sorted(row["task"] for row in rows) == ["fisheye", "mask", "toon"]
    assert [row["position"] for row in rows] == [0, 1, 2]
    for row in rows:
        assert tuple(row) == COLUMNS
        assert (row["table"], row["arm"], row["budget"], row["seed"], row["tasks"]) == ("faces_hpo", RANDOM, 10, 7, 3)
        own = table.performance[table.tasks.index(row["task"])]
        assert row["picked"] == np.nanargmax(own)
        assert row["rank_percent"] == pytest.approx(100 / np.isfinite(own).sum())
        assert row["gain"] == pytest.approx(0, abs=1e-12)


def told(job: Job, start: runs.WarmUpJob | None) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in runs.do_run(job, start)]


def test_same_seed_same_rows(folder: Path, warm: Path) -> None:
    job = Job(folder, RANDOM, BUDGET, 1)
    assert told(job, None) == told(job, None) != told(job._replace(seed=2), None)
    frozen = Job(folder, "Freeze whole ranker", BUDGET, 0)
    start = runs.warm_up_of(frozen, warm)
    assert start == runs.warm_up_of(frozen._replace(arm=FULL), warm) and start.file.is_file()
    assert told(frozen, start) == told(frozen, start)


def test_what_the_warm_up_wrote_is_what_runs_begin_with(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm_up, learned = runs.warm_up, []
    monkeypatch.setattr(runs, "warm_up", lambda *arguments: learned.append(warm_up(*arguments, 50)) or learned[-1])
    table = tables.load(folder)
    for arm in (FULL, "HyperFD (Statistics)", "Dataset-level: w/o attn."):
        start = runs.warm_up_of(Job(folder, arm, BUDGET, 4), tmp_path)
        assert start.seed == 0
        runs.do_warm_up(start)
        own = offline(table, run_of(table, runs.MOST_TASKS, 2), 0)
        recommender = ARMS[arm].recommender(4, own, runs._warmed(start, own))
        recommender.start_task(own[1].task, own[1].candidates)
        images, counts = recommender.described(own[1].task)
        extractor = runs.warmed_extractor(folder, tmp_path, arm)
        with torch.no_grad():
            wanted = learned[-1].extractor(images, counts)
            assert torch.equal(extractor(images, counts), wanted) and wanted.abs().sum() > 0
            assert torch.equal(recommender.extractor(images, counts), wanted)
            inputs = torch.from_numpy(own[1].candidates.vectors)
            assert torch.equal(recommender.encoder(inputs), learned[-1].encoder(inputs))
        assert weights.dumps(recommender.importance) == weights.dumps(learned[-1].importance)
        found = runs.warm_ups(folder, tmp_path).set_index("arm").loc[arm]
        assert found.ndcg == pytest.approx(max(learned[-1].ndcg)) and found.seconds > 0
    assert len(learned) == 3 and not list(tmp_path.rglob("*.part"))


def test_without_warm_up_nothing_has_been_learned(folder: Path, tmp_path: Path) -> None:
    start = runs.warm_up_of(Job(folder, "w/o warm-up", BUDGET, 0), tmp_path)
    runs.do_warm_up(start)
    table = tables.load(folder)
    own = offline(table, run_of(table, runs.MOST_TASKS), 0)
    warmed = runs._warmed(start, own)
    untrained, _ = runs._untrained(ARMS[FULL].recommender(0, own, None), 0)
    assert weights.dumps(warmed.extractor.state_dict()) == weights.dumps(untrained.state_dict())
    assert not any(tensor.any() for tensor in warmed.importance.values())
    (row,) = runs.warm_ups(folder, tmp_path).itertuples()
    assert (row.arm, row.seed) == ("w/o warm-up", 0) and math.isnan(row.ndcg)


def same(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    keys = ["table", "arm", "seed", "position"]
    frames = (frame.sort_values(keys).drop(columns="seconds").reset_index(drop=True) for frame in (found, wanted))
    pd.testing.assert_frame_equal(*frames)  # types as well: picked is a place


def test_a_run_that_a_kill_cut_off_is_done_again_and_no_other(folder: Path, tmp_path: Path, few: list[Job]) -> None:
    run_all([folder], tmp_path)
    assert len(few) == 3
    path = tmp_path / "outcomes.csv"
    whole, wanted = path.read_bytes(), runs.outcomes(tmp_path)
    assert path.read_bytes() == whole and len(wanted) == 9
    few.clear()
    run_all([folder], tmp_path)
    assert few == [] and path.read_bytes() == whole
    lines = whole.splitlines(keepends=True)
    last = int(lines[-1].split(b",")[3])
    before, cut = b"".join(lines[:-1]), lines[-1]
    fields = [place for place, letter in enumerate(cut) if letter == ord(",")]
    for left in (0, 3, *fields, fields[7] + 2, len(cut) - 2, len(cut) - 1):
        path.write_bytes(before + cut[:left])
        few.clear()
        run_all([folder], tmp_path)
        assert [job.seed for job in few] == [last], left
        same(runs.outcomes(tmp_path), wanted)
    for left in (0, 5, len(lines[0])):  # within the first line
        path.write_bytes(lines[0][:left])
        few.clear()
        run_all([folder], tmp_path)
        assert len(few) == 3
        same(runs.outcomes(tmp_path), wanted)


def test_warm_ups_are_done_once(folder: Path, warm: Path, tmp_path: Path, few, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(warm / "warm-ups", tmp_path / "warm-ups")
    planned = [Job(folder, arm, BUDGET, 0) for arm in ("Freeze whole ranker", "w/o warm-up")]
    monkeypatch.setattr(runs, "jobs", lambda *_: planned)
    begun, do_warm_up = [], runs.do_warm_up
    monkeypatch.setattr(runs, "do_warm_up", lambda job: begun.append(job.arm) or do_warm_up(job))
    run_all([folder], tmp_path)
    assert begun == ["w/o warm-up"] and few == planned


def test_names_may_look_like_numbers(tmp_path: Path) -> None:
    values = ("2026", RANDOM, 4, 0, 1, 0, "007", 0.1 + 0.2, 0.0, 3, 1.0)
    runs._append(tmp_path / "outcomes.csv", [dict(zip(COLUMNS, values, strict=True))])
    assert tuple(runs.outcomes(tmp_path).iloc[0]) == values


def test_a_folder_of_another_table_or_version_is_refused_by_name(
    folder: Path, make, tmp_path: Path, few: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run_all([folder], out)
    other = make(tmp_path / "other" / folder.name, shift=0.1)
    with pytest.raises(TableError, match="out holds runs on another faces_hpo: its digest was .* name another --out"):
        run_all([other], out)
    run_all([folder], out)  # its own goes on
    monkeypatch.setattr(runs, "version", lambda _: "0.0.1")
    with pytest.raises(
        TableError, match="out holds runs on another faces_hpo: its nni-hyperfd was .* now it is '0.0.1'"
    ):
        run_all([folder], out)
    assert len(few) == 3


def test_the_digest_is_of_what_decides(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / folder.name
    shutil.copytree(folder, own)
    before = tables.load(own).digest
    assert before == tables.load(folder).digest
    (own / "README.md").write_text("other")
    assert tables.load(own).digest == before
    features = own / "features" / "mask.safetensors"
    features.write_bytes((own / "features" / "toon.safetensors").read_bytes())
    assert tables.load(own).digest != before


def test_a_folder_that_another_process_fills_is_refused(folder: Path, tmp_path: Path, few: list[Job]) -> None:
    with runs.locked(tmp_path), pytest.raises(TableError, match="is being filled by another process"):
        run_all([folder], tmp_path)
    assert few == []
    with contextlib.suppress(ZeroDivisionError), runs.locked(tmp_path):
        raise ZeroDivisionError
    run_all([folder], tmp_path)
    assert len(few) == 3


def test_nothing_has_been_run_yet(folder: Path, tmp_path: Path) -> None:
    assert runs.outcomes(tmp_path).empty and tuple(runs.outcomes(tmp_path).columns) == COLUMNS
    assert runs.warm_ups(folder, tmp_path).empty


def test_runs_of_different_seeds_start_from_few_warm_ups(folder: Path, tmp_path: Path) -> None:
    starts = {runs.warm_up_of(Job(folder, FULL, *both), tmp_path) for both in itertools.product(BUDGETS, range(50))}
    assert {start.seed for start in starts} == set(range(runs.WARM_UPS)) and len(starts) == runs.WARM_UPS


def test_workers_end_with_a_process_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "leader.py"
    script.write_text(
        "import os, time\n"
        "from nni_hyperfd.benchmark.reproduce.runs import workers\n"
        "if __name__ == '__main__':\n"
        "    pool = workers(1)\n"
        "    print(pool.submit(os.getpid).result(), flush=True)\n"
        "    pool.submit(time.sleep, 600).result()\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as leader:
        worker = psutil.Process(int(leader.stdout.readline()))
        leader.kill()
    _, alive = psutil.wait_procs([worker], timeout=30)
    assert not alive
