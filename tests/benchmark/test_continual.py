from __future__ import annotations

import csv
import gzip
import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from nni_hyperfd.benchmark import continual, server, tables
from nni_hyperfd.benchmark.protocol import Protocol, turns
from nni_hyperfd.recommenders.base import ScoringRecommender
from nni_hyperfd.recommenders.simple import MeanRank

PROTOCOL = Protocol(max_tasks=5, candidates=20)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    names, tasks = [f"c{i}" for i in range(30)], [f"t{i}" for i in range(8)]
    vectors = rng.random((30, 2))
    np.savez(
        tmp_path / "performance.npz",
        perf=rng.random((8, 2)) @ vectors.T + 0.1 * rng.random((8, 30)),
        tasks=tasks,
        configs=names,
    )
    rows = [f"{name},{u},{v}\n" for name, (u, v) in zip(names, vectors, strict=True)]
    (tmp_path / "configs.csv.gz").write_bytes(gzip.compress("".join(["config_id,u,v\n", *rows]).encode()))
    (tmp_path / "tasks.csv").write_text("task_id,m,n\n" + "".join(f"{n},{i},{i % 3}\n" for i, n in enumerate(tasks)))
    (tmp_path / "meta.json").write_text(json.dumps({"name": "toy", "kinds": {"u": "num", "v": "num"}}))
    return tmp_path


def test_the_servers_data_sets_are_the_tasks_that_are_not_in_the_run(folder, monkeypatch):
    table = tables.load(folder)
    for seed in range(3):
        used = {turn.task for turn in turns(table, PROTOCOL, seed)}
        own = server.offline(table, PROTOCOL, seed)
        described = {tuple(data_set.task.meta_feature) for data_set in own}
        assert described == {tuple(table.meta_features[task]) for task in set(range(8)) - used}
        assert all(len(data_set.performance) == len(data_set.candidates) == 20 for data_set in own)
        for data_set in own:
            (task,) = np.flatnonzero((table.meta_features == data_set.task.meta_feature).all(axis=1))
            for vector, performance in zip(data_set.candidates.vectors, data_set.performance, strict=True):
                (config,) = np.flatnonzero((table.configurations.vectors == vector).all(axis=1))
                assert table.performance[task, config] == performance
    monkeypatch.setattr(server, "PAIRS", 30)
    assert [len(data_set.performance) for data_set in server.offline(table, PROTOCOL, 0)] == [10, 10, 10]


class Memory(ScoringRecommender):
    """Knows the best candidate of the last `span` tasks by heart, and picks the worst elsewhere."""

    def __init__(self, truth, span):
        super().__init__(0)
        self.truth, self.span, self.known = truth, span, []

    def scores(self):
        sign = 1 if tuple(self.task.meta_feature) in self.known[-self.span :] else -1
        return sign * self.truth[tuple(self.task.meta_feature)]

    def learn(self, indices, performance):
        self.known.append(tuple(self.task.meta_feature))


@pytest.mark.parametrize(("span", "after_last"), [(100, [1, 1]), (3, [0, 1]), (2, [0, 0])])
def test_what_was_learned_is_asked_again_at_once_and_at_the_end(folder, span, after_last):
    # Tasks 1 and 2 of 0..4 are asked again: with a memory of three tasks the second is still known at the end.
    table = tables.load(folder)
    truth = {tuple(table.meta_features[turn.task]): turn.performance for turn in turns(table, PROTOCOL, 0)}
    recommender = Memory(truth, span)
    outcomes, asked = continual.lead(table, PROTOCOL, recommender, 0, again=2)
    best, worst = 100 / 20, 100 * 17 / 20
    assert [outcome.rank_percent[-1] for outcome in outcomes] == [worst] * 4
    assert (asked.first_asked, asked.learned) == (worst, best)
    assert asked.after_last == pytest.approx(np.mean([best if known else worst for known in after_last]))
    assert len(recommender.known) == 5, "asking again must leave no trace"


def test_a_taught_recommender_has_had_the_servers_data_sets_as_tasks(folder):
    table = tables.load(folder)
    own = server.offline(table, PROTOCOL, 0)
    recommender = continual.taught(MeanRank(0), own)
    again = MeanRank(0)
    for data_set in own:
        again.start_task(data_set.task, data_set.candidates)
        again.end_task(dict(enumerate(data_set.performance)))
    for each in (recommender, again):
        each.start_task(own[0].task, own[0].candidates)
    np.testing.assert_array_equal(recommender.scores(), again.scores())
    assert len(np.unique(recommender.scores())) > 1


def test_the_program_writes_a_line_per_recommender_and_seed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(continual, "OTHERS", ("mean_rank",))
    monkeypatch.setattr(server, "PAIRS", 24)  # too few to hold any out, so the warm-up is short
    app = typer.Typer()
    app.command()(continual.main)
    out = tmp_path / "out"
    result = CliRunner().invoke(
        app, [str(folder), "--seeds", "1", "--tasks", "2", "--again", "1", "--output", str(out)]
    )
    assert result.exit_code == 0, result.output
    with (out / "continual.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [*continual.PAPER, "mean_rank"]
    assert [(row["recommender"], row["seed"]) for row in rows] == [(name, "0") for name in names]
    assert all(float(row[column]) > 0 for row in rows for column in ("rank_percent", "learned", "after_last"))


def test_the_program_refuses_what_is_no_table_and_a_table_of_three_tasks(folder):
    app = typer.Typer()
    app.command()(continual.main)
    result = CliRunner().invoke(app, [str(folder / "missing")])
    assert result.exit_code == 2 and "cannot" in result.output
    with np.load(folder / "performance.npz") as arrays:
        np.savez(folder / "performance.npz", **{**arrays, "perf": arrays["perf"][:3], "tasks": arrays["tasks"][:3]})
    result = CliRunner().invoke(app, [str(folder)])
    assert result.exit_code == 2 and "fewer than 4 tasks" in result.output
