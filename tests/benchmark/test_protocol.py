from __future__ import annotations

import csv

import numpy as np
import pytest
from typer.testing import CliRunner

from nni_hyperfd.benchmark import report
from nni_hyperfd.benchmark.protocol import Protocol, run, turns
from nni_hyperfd.benchmark.tables import Table
from nni_hyperfd.cli import app
from nni_hyperfd.recommenders import make
from nni_hyperfd.recommenders.base import Candidates, ScoringRecommender


def table(tasks=16, configurations=300, missing=0.0):
    rng = np.random.default_rng(0)
    performance = rng.random((tasks, configurations))
    performance[rng.random(performance.shape) < missing] = np.nan
    vectors = rng.random((configurations, 2), dtype=np.float32)
    meta_features = rng.random((tasks, 2)).astype(np.float32)
    return Table("toy", [f"t{i}" for i in range(tasks)], performance, Candidates(vectors), meta_features)


def test_random_search_comes_out_at_20_1():
    # (200 + 1) / (4 + 1) / 200
    outcomes = [o for seed in range(40) for o in run(table(), Protocol(), lambda s: make("random", s), seed)]
    ranks = [outcome.rank_percent[-1] for outcome in outcomes]
    error = np.std(ranks, ddof=1) / np.sqrt(len(ranks))
    assert len(ranks) == 40 * 15 and error < 0.8
    assert np.mean(ranks) == pytest.approx(20.1, abs=3 * error)
    gains = [outcome.gain for outcome in outcomes]
    assert np.mean(gains) == pytest.approx(0, abs=3 * np.std(gains, ddof=1) / np.sqrt(len(gains)))


class Spy(ScoringRecommender):
    """Picks in order and notes what it learns."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.revealed, self.told = [], []

    def scores(self):
        return -np.arange(float(len(self.candidates)))

    def tell(self, index, performance):
        super().tell(index, performance)
        self.told.append((index, performance))

    def end_task(self, revealed):
        self.revealed.append(revealed)


@pytest.mark.parametrize(("reveal", "expected"), [(None, 200), (16, 20), (0, 4), (1000, 200)])
def test_what_is_revealed(reveal, expected):
    spy = Spy()
    protocol = Protocol(reveal=reveal)
    outcomes = list(run(table(), protocol, lambda seed: spy, seed=3))
    assert [len(revealed) for revealed in spy.revealed] == [200] + [expected] * 15
    assert all(outcome.picks == [0, 1, 2, 3] for outcome in outcomes)
    for turn, revealed in zip(turns(table(), protocol, 3), spy.revealed, strict=True):
        assert all(value == turn.performance[index] for index, value in revealed.items())
    second = turns(table(), protocol, 3)[1]
    assert spy.told[:4] == [(index, second.performance[index]) for index in range(4)]


def test_a_run_follows_from_its_seed_alone():
    first, again, other = (turns(table(), Protocol(), seed) for seed in (1, 1, 2))
    assert [t.task for t in first] == [t.task for t in again] != [t.task for t in other]
    assert all(np.array_equal(a.indices, b.indices) for a, b in zip(first, again, strict=True))
    assert len({tuple(turn.indices) for turn in first}) == 16  # drawn afresh


def test_at_most_16_tasks_and_every_candidate_once():
    result = turns(table(tasks=20), Protocol(), 0)
    assert len({turn.task for turn in result}) == 16
    assert all(len(set(turn.indices)) == 200 for turn in result)


def test_only_measured_cells_are_candidates():
    patchy = table(missing=0.5)
    patchy.performance[3] = np.nan
    result = turns(patchy, Protocol(), 0)
    assert 3 not in {turn.task for turn in result} and len(result) == 15
    assert all(np.isfinite(turn.performance).all() and 100 < len(turn.indices) < 200 for turn in result)
    patchy.performance[1:] = np.nan
    with pytest.raises(ValueError, match="fewer than two tasks"):
        turns(patchy, Protocol(), 0)


def test_paired_differences_by_hand():
    def runs(name, ranks):
        base = next(iter(run(table(3, 20), Protocol(candidates=10), lambda s: make("random", s), 0)))
        return [
            report.Run("toy", name, seed, [type(base)(1, "t", [0], [rank], 0, 0, 0)], 0.0)
            for seed, rank in enumerate(ranks)
        ]

    difference = report.paired_difference(runs("a", [1.0, 4.0, 9.0]), runs("b", [2.0, 2.0]), "rank_percent")
    assert difference.mean == pytest.approx(0.5) and difference.error == pytest.approx(1.5)


@pytest.fixture
def stored(tmp_path):
    import gzip
    import json

    made = table(tasks=3, configurations=30)
    names = [f"c{i}" for i in range(30)]
    np.savez(tmp_path / "performance.npz", perf=made.performance, tasks=made.tasks, configs=names)
    rows = [f"{name},{u},{v}\n" for name, (u, v) in zip(names, made.configurations.vectors, strict=True)]
    (tmp_path / "configs.csv.gz").write_bytes(gzip.compress("".join(["config_id,u,v\n", *rows]).encode()))
    (tmp_path / "tasks.csv").write_text("task_id,m\n" + "".join(f"{name},1\n" for name in made.tasks))
    (tmp_path / "meta.json").write_text(json.dumps({"name": "toy", "kinds": {"u": "num", "v": "num"}}))
    return tmp_path


def test_the_command_writes_values_per_seed_and_a_figure(stored, tmp_path):
    out = tmp_path / "results"
    arguments = ["benchmark", str(stored), "--recommenders", "random,mean_rank", "--seeds", "3", "--candidates", "20"]
    result = CliRunner().invoke(app, [*arguments, "--reveal", "5", "--figure", "--out", str(out)])
    assert result.exit_code == 0, result.output
    with (out / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["recommender"], row["seed"]) for row in rows] == [
        (n, s) for n in ("random", "mean_rank") for s in "012"
    ]
    assert all(5 <= float(row["rank_percent"]) <= 100 for row in rows)
    assert (out / "rank_against_picks.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recommenders", "oracle"], "oracle"),
        (["--reveal", "some"], "--reveal"),
    ],
)
def test_the_command_refuses_what_it_does_not_know(stored, arguments, message):
    result = CliRunner().invoke(app, ["benchmark", str(stored), *arguments])
    assert result.exit_code == 2 and message in result.output


def test_meta_features_may_be_withheld():
    seen = []

    class Watching(Spy):
        def start_task(self, task, candidates):
            super().start_task(task, candidates)
            seen.append(task.meta_feature)

    for shown in (True, False):
        list(run(table(3), Protocol(meta_features=shown), Watching, seed=0))
    assert all(vector.shape == (2,) for vector in seen[:3]) and seen[3:] == [None, None, None]
