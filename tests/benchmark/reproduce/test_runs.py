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

from nni_hyperfd.benchmark import results, tables
from nni_hyperfd.benchmark.protocol import Outcome, Protocol
from nni_hyperfd.benchmark.regime import Regime
from nni_hyperfd.benchmark.reproduce import arms, runs, warm_ups
from nni_hyperfd.benchmark.reproduce.arms import ARMS, DEFAULT, FULL, OVER_BUDGETS
from nni_hyperfd.benchmark.reproduce.plan import (
    BUDGET,
    BUDGETS,
    WARM_UPS,
    ArmRun,
    ArmWarmUp,
    Setting,
    planned,
    settings,
    warm_up_of,
)
from nni_hyperfd.benchmark.reproduce.runs import COLUMNS
from nni_hyperfd.benchmark.results import RecommenderRun
from nni_hyperfd.benchmark.tables import TableError
from nni_hyperfd.files import FolderError, RowFile, locked
from nni_hyperfd.method import weights
from nni_hyperfd.recommenders.simple import RandomSearch

RANDOM = "Random search"


def run_all(folder: Path, out: Path, regime: Regime = Regime.REAL) -> None:
    runs.run_all(settings([folder], regime), out, 2, 2, 1, lambda these, **_: these)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[ArmRun]:
    """Three quick runs of each table, in this process. Gives what has really been run."""
    done, do_run = [], runs.do_run
    monkeypatch.setattr(
        runs, "planned", lambda setting, *_: [ArmRun(setting, RANDOM, BUDGET, seed) for seed in range(3)]
    )
    monkeypatch.setattr(runs, "ProcessPoolExecutor", lambda processes, *_: ThreadPoolExecutor(processes))
    monkeypatch.setattr(runs, "do_run", lambda one, start: done.append(one) or do_run(one, start))
    return done


def test_everything_is_planned_once_and_seed_by_seed(setting: Setting) -> None:
    wanted = planned(setting, seeds=3, orders=5)
    assert len(wanted) == len(set(wanted))
    expected = {(arm, BUDGET, seed) for arm in ARMS for seed in range(3)}
    expected |= {(arm, budget, seed) for arm in OVER_BUDGETS for budget in BUDGETS for seed in range(3)}
    expected |= {(arm, BUDGET, seed) for arm in (RANDOM, FULL, DEFAULT) for seed in (3, 4)}
    assert {one[1:] for one in wanted} == expected and {one.setting for one in wanted} == {setting}
    seeds = [one.seed for one in wanted]
    assert seeds == sorted(seeds), "stopped early, all arms have about as many seeds"
    assert {one[1:] for one in planned(setting, seeds=3, orders=2)} == {one for one in expected if one[2] < 3}


def test_tables_that_show_nothing_are_refused(make, tmp_path: Path) -> None:
    bare = make(tmp_path / "bare", server=(), clients=("mask", "toon", "fisheye"))
    with pytest.raises(TableError, match="bare names no data sets of the server's own; name them with --server"):
        settings([bare], Regime.REAL)
    (named,) = settings([bare], Regime.REAL, server=["toon"])
    assert named.table.server == (1,) and named.protocol.offline == 1
    with pytest.raises(TableError, match="few has fewer than two data sets beside the server's own"):
        settings([make(tmp_path / "few", clients=("toon",))], Regime.REAL)


def test_a_budget_for_all_candidates_finds_the_best_of_every_data_set(setting: Setting, tmp_path: Path) -> None:
    run = runs.do_run(ArmRun(setting, RANDOM, 10, 7), None)
    assert run.key == ("faces_hpo", RANDOM, 7, Protocol(offline=3, budget=10))
    assert sorted(one.task for one in run.outcomes) == ["fisheye", "mask", "toon"]
    for row in run.rows:
        RowFile(tmp_path / results.FILE, results.COLUMNS).add(row)
    rows = runs.outcomes(tmp_path)
    assert tuple(rows.columns) == tuple(COLUMNS) and rows.position.tolist() == [0, 1, 2]
    for row in rows.itertuples():
        assert (row.table, row.arm, row.budget, row.seed) == ("faces_hpo", RANDOM, 10, 7)
        own = setting.table.performance[setting.table.tasks.index(row.task)]
        assert row.picked == np.nanargmax(own)
        assert row.rank_percent == pytest.approx(100 / np.isfinite(own).sum())
        assert row.gain == pytest.approx(0, abs=1e-12)


def test_recommenders_are_told_of_past_tasks_what_the_regime_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []

    class Spy(RandomSearch):
        def end_task(self, revealed: dict[int, float]) -> None:
            heard.append(len(revealed))

    monkeypatch.setattr(arms, "make", lambda name, seed: Spy(seed))
    for regime, known in (
        (Regime.REAL, [8, 8, 8, 4, 4, 4]),
        (Regime.COLD, [4, 4, 4]),
        (Regime.REVEALED, [8, 8, 8, 8, 8, 7]),
    ):
        heard.clear()
        runs.do_run(ArmRun(settings([folder], regime)[0], RANDOM, BUDGET, 0), None)
        assert sorted(heard, reverse=True) == known, "three data sets of the server's, one client's with a gap"


def told(one: ArmRun, start: ArmWarmUp | None) -> tuple[Outcome, ...]:
    return runs.do_run(one, start).outcomes


def test_same_seed_same_outcomes(setting: Setting, warm: Path) -> None:
    one = ArmRun(setting, RANDOM, BUDGET, 1)
    assert told(one, None) == told(one, None) != told(one._replace(seed=2), None)
    frozen = ArmRun(setting, "Freeze whole ranker", BUDGET, 0)
    start = warm_up_of(frozen, warm)
    assert start == warm_up_of(frozen._replace(arm=FULL), warm) and start.file.is_file()
    assert told(frozen, start) == told(frozen, start)


def test_what_the_warm_up_wrote_is_what_runs_begin_with(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm_up, learned = warm_ups.warm_up, []
    monkeypatch.setattr(warm_ups, "warm_up", lambda *arguments: learned.append(warm_up(*arguments, 50)) or learned[-1])
    for arm in (FULL, "HyperFD (Statistics)", "Dataset-level: w/o attn."):
        start = warm_up_of(ArmRun(setting, arm, BUDGET, 4), tmp_path)
        assert start.seed == 0
        warm_ups.do_warm_up(start)
        own = start.own
        recommender = ARMS[arm].recommender(4, own, warm_ups.read(start))
        recommender.start_task(own[1].task, own[1].candidates)
        images = recommender.described(own[1].task)
        extractor = warm_ups.warmed_extractor(setting, tmp_path, arm)
        with torch.no_grad():
            wanted = learned[-1].extractor(images)
            assert torch.equal(extractor(images), wanted) and wanted.abs().sum() > 0
            assert torch.equal(recommender.extractor(images), wanted)
            inputs = own[1].candidates
            assert torch.equal(recommender.encoder(inputs), learned[-1].encoder(inputs))
        assert weights.dumps(recommender.importance) == weights.dumps(learned[-1].importance)
        found = warm_ups.warm_ups(setting, tmp_path).set_index("arm").loc[arm]
        assert found.ndcg == pytest.approx(max(learned[-1].ndcg)) and found.seconds > 0
    assert len(learned) == 3 and not list(tmp_path.rglob("*.part"))


def test_without_warm_up_nothing_has_been_learned(setting: Setting, tmp_path: Path) -> None:
    start = warm_up_of(ArmRun(setting, "w/o warm-up", BUDGET, 0), tmp_path)
    warm_ups.do_warm_up(start)
    warmed = warm_ups.read(start)
    untrained, _ = warm_ups.untrained(ARMS[FULL].recommender(0, start.own, None))
    assert weights.dumps(warmed.extractor.state_dict()) == weights.dumps(untrained.state_dict())
    assert not any(tensor.any() for tensor in warmed.importance.values())
    (row,) = warm_ups.warm_ups(setting, tmp_path).itertuples()
    assert (row.arm, row.seed) == ("w/o warm-up", 0) and math.isnan(row.ndcg)


def same(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    keys = ["table", "arm", "seed", "position"]
    frames = (frame.sort_values(keys).reset_index(drop=True) for frame in (found, wanted))
    pd.testing.assert_frame_equal(*frames)  # types as well: picked is a place


def test_a_run_that_a_kill_cut_off_is_done_again_and_no_other(folder: Path, tmp_path: Path, few: list[ArmRun]) -> None:
    run_all(folder, tmp_path)
    assert len(few) == 3
    path = tmp_path / "outcomes.csv"
    whole, wanted = path.read_bytes(), runs.outcomes(tmp_path)
    assert path.read_bytes() == whole and len(wanted) == 9
    few.clear()
    run_all(folder, tmp_path)
    assert few == [] and path.read_bytes() == whole
    lines = whole.splitlines(keepends=True)
    last = int(lines[-1].split(b",")[3])
    before, cut = b"".join(lines[:-1]), lines[-1]
    fields = [place for place, letter in enumerate(cut) if letter == ord(",")]
    for left in (0, 3, *fields, fields[-3] + 2, len(cut) - 2, len(cut) - 1):
        path.write_bytes(before + cut[:left])
        few.clear()
        run_all(folder, tmp_path)
        assert [one.seed for one in few] == [last], left
        same(runs.outcomes(tmp_path), wanted)
    path.write_bytes(b"".join(lines[:-2]))  # between two rows of a run
    few.clear()
    run_all(folder, tmp_path)
    assert [one.seed for one in few] == [last]
    same(runs.outcomes(tmp_path), wanted)
    for left in (0, 5, len(lines[0])):  # within the first line
        path.write_bytes(lines[0][:left])
        few.clear()
        run_all(folder, tmp_path)
        assert len(few) == 3
        same(runs.outcomes(tmp_path), wanted)


def test_warm_ups_are_done_once(
    folder: Path, setting: Setting, warm: Path, tmp_path: Path, few, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(warm / "warm-ups", tmp_path / "warm-ups")
    wanted = [ArmRun(setting, arm, BUDGET, 0) for arm in ("Freeze whole ranker", "w/o warm-up")]
    monkeypatch.setattr(runs, "planned", lambda *_: wanted)
    begun, do_warm_up = [], runs.do_warm_up
    monkeypatch.setattr(runs, "do_warm_up", lambda one: begun.append(one.arm) or do_warm_up(one))
    run_all(folder, tmp_path)
    assert begun == ["w/o warm-up"] and few == wanted


def test_names_may_look_like_numbers(tmp_path: Path) -> None:
    outcome = Outcome(0, "007", (5, 3, 2), (50.0, 0.1 + 0.2, 0.1 + 0.2), 0.0, 0.5, 0.5)
    file = RowFile(tmp_path / results.FILE, results.COLUMNS)
    for row in RecommenderRun("2026", RANDOM, 0, Protocol(offline=2), (outcome,), 1.0).rows:
        file.add(row)
    assert tuple(runs.outcomes(tmp_path).iloc[0]) == ("2026", RANDOM, 4, 0, 0, "007", 0.1 + 0.2, 0.0, 3)


def test_a_folder_of_another_table_or_version_is_refused_by_name(
    folder: Path, make, tmp_path: Path, few: list[ArmRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run_all(folder, out)
    other = make(tmp_path / "other" / folder.name, shift=0.1)
    with pytest.raises(FolderError, match=r"out: it holds results of other settings \(faces_hpo.json: digest was"):
        run_all(other, out)
    with pytest.raises(FolderError, match='faces_hpo.json: regime was "real", is now "cold"; offline was 3, is now 0'):
        run_all(folder, out, Regime.COLD)
    run_all(folder, out)  # its own goes on
    monkeypatch.setattr(runs, "version", lambda _: "0.0.1")
    with pytest.raises(FolderError, match='faces_hpo.json: nni-hyperfd was .*, is now "0.0.1"'):
        run_all(folder, out)
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


def test_a_folder_that_another_process_fills_is_refused(folder: Path, tmp_path: Path, few: list[ArmRun]) -> None:
    with locked(tmp_path), pytest.raises(FolderError, match="another process is working on it"):
        run_all(folder, tmp_path)
    assert few == []
    with contextlib.suppress(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    run_all(folder, tmp_path)
    assert len(few) == 3


def test_nothing_has_been_run_yet(setting: Setting, tmp_path: Path) -> None:
    assert runs.outcomes(tmp_path).empty and tuple(runs.outcomes(tmp_path).columns) == tuple(COLUMNS)
    assert warm_ups.warm_ups(setting, tmp_path).empty


def test_runs_of_different_seeds_start_from_few_warm_ups(setting: Setting, tmp_path: Path) -> None:
    starts = {warm_up_of(ArmRun(setting, FULL, *both), tmp_path) for both in itertools.product(BUDGETS, range(50))}
    assert {start.seed for start in starts} == set(range(WARM_UPS)) and len(starts) == WARM_UPS


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
