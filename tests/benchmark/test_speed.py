from __future__ import annotations

import csv

import numpy as np
import pytest

from nni_hyperfd.benchmark import speed


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(speed, "GRAPHS", 8)
    monkeypatch.setattr(speed, "GRAPHS_AT_ONCE", 4)
    monkeypatch.setattr(speed, "EMBEDDED", 50)


def test_the_space_is_the_papers():
    assert speed.SPACE.shape == (216, 15) and len(np.unique(speed.SPACE, axis=0)) == 216
    assert (speed.SPACE.sum(axis=1) == 6).all()


def test_networks_are_what_they_are_said_to_be(small):
    cells, chains = speed._cells(), speed._chains()
    assert cells.ops.shape == (8, 8) and cells.adjacency.any(axis=(1, 2)).all()
    assert chains.ops.shape == (8, 22) and (chains.ops == -1).any()
    first_of_each_stage = [0, 1, 4, 8, 12, 16, 20]
    assert (chains.ops[:, first_of_each_stage] >= 0).all() and chains.stages[0, -1] == 6


def test_ours_and_the_baseline_are_called_in_turn():
    called = []
    medians = speed._medians(lambda: called.append("ours"), lambda: called.append("baseline"), repeats=3)
    assert called == ["ours", "baseline"] * 4 and min(medians) >= 0


def test_figures_are_printed_and_written(small, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(speed, "recommending", list)  # these two learn for a minute
    monkeypatch.setattr(speed, "learning", list)
    monkeypatch.setattr("sys.argv", ["speed", str(tmp_path / "speed.csv")])
    speed.main()
    with (tmp_path / "speed.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["what"][:3] for row in rows] == ["GIN", "GIN", "top"] and "GIN" in capsys.readouterr().out
    assert all(float(row["median"]) > 0 and row["baseline"] for row in rows)


def test_more_than_one_core_is_refused(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with pytest.raises(SystemExit, match="OMP_NUM_THREADS=1"):
        speed.main()


def test_a_recommender_with_past_tasks_can_be_asked():
    recommender = speed._experienced(3)
    task = speed.Task(speed.BUDGET, np.zeros(speed.HIDDEN, dtype=np.float32))
    speed._tried(recommender, task, speed.EncodedConfigurations(speed.SPACE), np.zeros(216))
    assert recommender.ask(1) == [] and len(recommender._models[15][1].tasks) == 3
