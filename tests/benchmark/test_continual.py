from __future__ import annotations

import csv
import gzip
import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from nni_hyperfd.benchmark import continual, tables
from nni_hyperfd.benchmark import protocol as protocol_module
from nni_hyperfd.benchmark.protocol import Protocol, course
from nni_hyperfd.recommenders.base import ScoringRecommender

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
    # Tasks 0 and 1 of 0..3 are asked again: with a memory of three tasks the second is still known at the end.
    table = tables.load(folder)
    known = course(table, PROTOCOL, 0)
    truth = {tuple(turn.task.meta_feature): turn.performance for turn in known.turns}
    recommender = Memory(truth, span)
    outcomes, asked = continual.lead_and_ask_again(known.turns, PROTOCOL, recommender, 0, again=2)
    best, worst = 100 / 20, 100 * 17 / 20
    assert [outcome.rank_percent[-1] for outcome in outcomes] == [worst] * 4
    assert (asked.first_asked, asked.learned) == (worst, best)
    assert asked.after_last == pytest.approx(np.mean([best if known else worst for known in after_last]))
    assert len(recommender.known) == 4, "asking again must leave no trace"


def invoke(folder, out, *arguments):
    app = typer.Typer()
    app.command()(continual.main)
    command = [str(folder), "--seeds", "1", "--again", "1", "--output", str(out), *arguments]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "300"})
    if result.exit_code:
        return result.output, []
    with (out / "continual.csv").open() as file:
        return result.output, list(csv.DictReader(file))


def test_the_program_writes_a_line_per_recommender_and_seed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(continual, "OTHERS", ("mean_rank",))
    monkeypatch.setattr(protocol_module, "PAIRS", 24)  # too few to hold any out, so the warm-up is short
    printed, rows = invoke(folder, tmp_path / "out", "--tasks", "4", "--offline", "3")
    names = [*continual.PAPER, "mean_rank"]
    assert [(row["recommender"], row["seed"]) for row in rows] == [(name, "0") for name in names]
    assert {(row["regime"], row["offline"], row["tasks"]) for row in rows} == {("real", "3", "1")}
    assert all(float(row[column]) > 0 for row in rows for column in ("rank_percent", "learned", "after_last"))
    assert "toy, 1 seeds: real regime, 3 offline data sets" in printed


def test_cold_nothing_is_warmed_up(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(continual, "PAPER", {"full": continual.PAPER["full"]})
    monkeypatch.setattr(continual, "OTHERS", ("mean_rank",))
    printed, rows = invoke(folder, tmp_path / "out", "--tasks", "2", "--regime", "cold")
    assert {(row["regime"], row["offline"], row["tasks"]) for row in rows} == {("cold", "0", "2")}
    assert "toy, 1 seeds: cold regime, no offline data sets" in printed


def test_the_program_refuses_what_is_no_table_and_what_leaves_no_task(folder, tmp_path):
    assert "cannot" in invoke(folder / "missing", tmp_path / "out")[0]
    assert "no task left to score" in invoke(folder, tmp_path / "out", "--offline", "8")[0]
    assert "cold regime has no offline data sets" in invoke(folder, tmp_path, "--offline", "8", "--regime", "cold")[0]
