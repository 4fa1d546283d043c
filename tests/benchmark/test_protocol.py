from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest
from typer.testing import CliRunner

from nni_hyperfd.benchmark import report
from nni_hyperfd.benchmark.protocol import Outcome, Protocol, pick_all, run, turns
from nni_hyperfd.benchmark.tables import Table
from nni_hyperfd.cli import app
from nni_hyperfd.recommenders import make
from nni_hyperfd.recommenders.base import ScoringRecommender, Task
from nni_hyperfd.recommenders.simple import MeanRank
from nni_hyperfd.space.encoded import EncodedConfigurations


def table(tasks=16, configurations=300, missing=0.0):
    rng = np.random.default_rng(0)
    performance = rng.random((tasks, configurations))
    performance[rng.random(performance.shape) < missing] = np.nan
    vectors = rng.random((configurations, 2), dtype=np.float32)
    meta_features = rng.random((tasks, 2)).astype(np.float32)
    return Table("toy", [f"t{i}" for i in range(tasks)], performance, EncodedConfigurations(vectors), meta_features)


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


def test_the_servers_tasks_take_no_part_and_all_others_may_be_scored():
    own = dataclasses.replace(table(), server=(0, 5, 11))
    protocol = Protocol(given=0)
    assert {turn.task for turn in turns(own, protocol, 3)} == set(range(16)) - {0, 5, 11}
    assert len(list(run(own, protocol, lambda s: make("random", s), 3))) == 13
    assert len(list(run(own, Protocol(given=4), lambda s: make("random", s), 3))) == 9


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


def test_a_table_without_differences():
    flat = table(tasks=3, configurations=8)
    flat.performance[:] = 0.5
    outcomes = list(run(flat, Protocol(), MeanRank, 0))
    assert [(o.gain, o.ndcg, o.regret) for o in outcomes] == [(pytest.approx(0), 1, 0)] * 2
    assert all(12.5 <= o.rank_percent[-1] <= 100 for o in outcomes)


def test_a_table_of_one_configuration():
    outcomes = list(run(table(tasks=3, configurations=1), Protocol(), MeanRank, 0))
    assert [(o.picks, o.rank_percent) for o in outcomes] == [([0], [100])] * 2


class Queue(Spy):
    """Notes for each pick how many results are known and how many trials are running."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.seen = []

    def ask(self, n=1):
        picks = super().ask(n)
        self.seen += [(len(self.results), len(self.asked) - len(self.results) - n + place) for place in range(n)]
        return picks


@pytest.mark.parametrize(
    ("concurrency", "expected"),
    [
        (1, [(0, 0), (1, 0), (2, 0), (3, 0)]),
        (2, [(0, 0), (0, 1), (1, 1), (2, 1)]),
        (3, [(0, 0), (0, 1), (0, 2), (1, 2)]),
        (4, [(0, 0), (0, 1), (0, 2), (0, 3)]),
        (9, [(0, 0), (0, 1), (0, 2), (0, 3)]),
    ],
)
def test_trials_side_by_side(concurrency, expected):
    performance = np.arange(6.0)
    queue = Queue()
    queue.start_task(Task(4), EncodedConfigurations(np.zeros((6, 1), dtype=np.float32)))
    assert pick_all(queue, performance, 4, concurrency) == [0, 1, 2, 3]
    assert queue.seen == expected
    assert queue.told == [(index, performance[index]) for index in range(4)]


def made_runs(name, ranks, budget=4):
    """One run per seed; ranks: Rank% of each task."""
    return [
        report.RecommenderRun.of(
            "toy", name, seed, Protocol(budget=budget), [Outcome(1, "t", [0], [rank], 0, 0, 0) for rank in row], 0.0
        )
        for seed, row in enumerate(ranks)
    ]


def test_paired_differences_by_hand():
    runs = made_runs("a", [[1.0], [4.0], [9.0]]) + made_runs(report.REFERENCE, [[2.0], [2.0]])
    ours, theirs = report.summarised(runs)
    assert ours.measures["rank_percent"].mean == pytest.approx(14 / 3)
    difference = ours.differences["rank_percent"]
    assert difference.mean == pytest.approx(0.5) and difference.error == pytest.approx(1.5)
    assert theirs.differences["rank_percent"].mean == 0


def test_halves_of_a_run_by_hand():
    # the task in the middle belongs to the first half
    runs = made_runs("a", [[9.0, 1.0, 5.0], [9.0, 1.0, 7.0]]) + made_runs(report.REFERENCE, [[4.0, 4.0, 4.0]] * 2)
    ours, _ = report.summarised(runs)
    means = [ours.measures[name].mean for name in ("rank_percent", "first_half", "second_half")]
    assert means == pytest.approx([16 / 3, 5, 6])
    assert report.Estimate.of([0.1] * 7).error == 0, "whatever the mean of equal values is rounded to"
    assert ours.differences["first_half"] == report.Estimate(1, 0)
    assert ours.differences["second_half"] == report.Estimate(2, 1)


def test_budgets_are_summarised_apart():
    runs = made_runs("a", [[3.0]], 2) + made_runs("a", [[1.0]], 4) + made_runs(report.REFERENCE, [[2.0]], 4)
    two, four, _ = report.summarised(runs)
    assert (two.budget, two.differences) == (2, {})
    assert (four.budget, four.differences["rank_percent"].mean) == (4, -1)


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


def test_the_command_writes_each_run_a_summary_and_a_figure(stored, tmp_path):
    out = tmp_path / "results"
    arguments = [
        "benchmark",
        str(stored),
        "--recommenders",
        "random,mean_rank",
        "--candidates",
        "20",
        "--out",
        str(out),
    ]
    more = ["--seeds", "3", "--first-seed", "7", "--budget", "2,4", "--reveal", "5", "--concurrency", "2"]
    result = CliRunner().invoke(app, [*arguments, *more])
    assert result.exit_code == 0, result.output
    with (out / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["budget"], row["recommender"], row["seed"]) for row in rows] == [
        (budget, name, seed) for budget in "24" for name in ("random", "mean_rank") for seed in "789"
    ]
    what = {"table": "toy", "max_tasks": "16", "candidates": "20", "concurrency": "2", "reveal": "5"}
    assert all(row.items() >= what.items() and 5 <= float(row["rank_percent"]) <= 100 for row in rows)
    with (out / "summary.csv").open() as file:
        (line,) = (
            row
            for row in csv.DictReader(file)
            if (row["budget"], row["recommender"], row["measure"]) == ("4", "random", "first_half")
        )
    halves = [[float(r["first_half"]) for r in rows if r["recommender"] == n][3:] for n in ("random", "mean_rank")]
    assert float(line["mean"]) == pytest.approx(np.mean(halves[0]))
    assert float(line["minus_mean_rank"]) == pytest.approx(np.mean(halves[0]) - np.mean(halves[1]))
    assert (out / "rank_against_budget.png").read_bytes().startswith(b"\x89PNG")


def test_all_recommenders_and_a_single_budget_without_figure(stored, tmp_path, monkeypatch):
    monkeypatch.setattr("nni_hyperfd.recommenders.NAMES", ("knn", "random"))  # the others take longer to learn
    arguments = ["--recommenders", "all", "--seeds", "1", "--candidates", "5", "--budget", "1", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, ["benchmark", str(stored), *arguments])
    assert result.exit_code == 0, result.output
    with (tmp_path / "runs.csv").open() as file:
        assert [row["recommender"] for row in csv.DictReader(file)] == ["knn", "random"]
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recommenders", "oracle"], "oracle"),
        (["--reveal", "some"], "--reveal"),
        (["--budget", "4,0"], "--budget"),
        (["--budget", "four"], "--budget"),
    ],
)
def test_the_command_refuses_what_it_does_not_know(stored, arguments, message):
    result = CliRunner().invoke(app, ["benchmark", str(stored), *arguments])
    assert result.exit_code == 2 and message in result.output


def test_the_same_table_twice_is_refused(stored):
    result = CliRunner().invoke(app, ["benchmark", str(stored), str(stored)])
    assert result.exit_code == 2 and "same name" in result.output


def test_meta_features_may_be_withheld():
    seen = []

    class Watching(Spy):
        def start_task(self, task, candidates):
            super().start_task(task, candidates)
            seen.append(task.meta_feature)

    for shown in (True, False):
        list(run(table(3), Protocol(meta_features=shown), Watching, seed=0))
    assert all(vector.shape == (2,) for vector in seen[:3]) and seen[3:] == [None, None, None]
