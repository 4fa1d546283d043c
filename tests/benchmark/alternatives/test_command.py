"""The program on small tables: what it writes, going on, and what it refuses."""

from __future__ import annotations

import csv
import gzip
import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from nni_hyperfd.benchmark.alternatives import command

app = typer.Typer()
app.command()(command.main)


def store(folder, name="toy", configurations=8, shift=0.0):
    """Four tasks, a category and a number, one cell not measured."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    performance = rng.random((4, configurations)) + shift
    performance[1, 2] = np.nan
    names = [f"c{i}" for i in range(configurations)]
    np.savez(folder / "performance.npz", perf=performance, tasks=[f"t{i}" for i in range(4)], configs=names)
    rows = [f"{own},{'ab'[place % 2]},{rng.random()}\n" for place, own in enumerate(names)]
    (folder / "configs.csv.gz").write_bytes(gzip.compress("".join(["config_id,u,v\n", *rows]).encode()))
    (folder / "tasks.csv").write_text("task_id,m\n" + "".join(f"t{i},{i}\n" for i in range(4)))
    (folder / "meta.json").write_text(json.dumps({"name": name, "kinds": {"u": "cat", "v": "num"}}))
    return folder


def invoke(tmp_path, *arguments, only="random,hyperfd,nni_tpe"):
    arguments = [*map(str, arguments), "--only", only, "--out", str(tmp_path / "out")]
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "500"})


def lines(tmp_path):
    with (tmp_path / "out" / "outcomes.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_two_tables_a_budget_beyond_the_candidates_and_a_summary(tmp_path):
    folders = store(tmp_path / "a"), store(tmp_path / "b", "other", configurations=5)
    result = invoke(tmp_path, *folders, "--seeds", "2", "--budget", "20")
    assert result.exit_code == 0, result.output
    rows = lines(tmp_path)
    assert len(rows) == 2 * 2 * 3 * 3 and {(row["table"], row["missing"]) for row in rows} == {
        ("toy", "1"),
        ("other", "1"),
    }
    assert all(float(row["regret"]) == 0 for row in rows)  # all candidates were tried
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    (line,) = (one for one in found["results"] if (one["table"], one["recommender"]) == ("toy", "nni_tpe"))
    own, theirs = (
        [float(row["rank_percent"]) for row in rows if (row["table"], row["recommender"]) == ("toy", name)]
        for name in ("nni_tpe", "hyperfd")
    )
    difference = line["measures"]["rank_percent"]["minus_hyperfd_mean"]
    assert difference == pytest.approx(np.mean(own) - np.mean(theirs))
    assert "s/pick" in result.output and "- hyperfd" in result.output
    assert "toy, budget 20, 2 seeds: real regime, 1 offline data set" in result.output


def test_the_regime_is_chosen_as_everywhere(tmp_path):
    folder = store(tmp_path / "a")
    result = invoke(tmp_path, folder, "--seeds", "1", "--regime", "cold", only="random")
    assert "cold regime, no offline data sets" in result.output
    result = invoke(tmp_path, folder, "--seeds", "1", "--offline", "2", only="random")
    assert "real regime, 2 offline data sets" in result.output
    assert [(row["regime"], row["offline"]) for row in lines(tmp_path)] == [("cold", "0")] * 4 + [("real", "2")] * 2
    result = invoke(tmp_path, folder, "--regime", "cold", "--offline", "2")
    assert result.exit_code == 2 and "cold regime has no offline data sets" in result.output
    result = invoke(tmp_path, folder, "--offline", "4")
    assert result.exit_code == 2 and "no task left to score" in result.output


def test_it_goes_on_after_what_is_there(tmp_path):
    folder = store(tmp_path / "a")
    assert invoke(tmp_path, folder, "--seeds", "2").exit_code == 0
    path = tmp_path / "out" / "outcomes.csv"
    first = path.read_bytes()
    path.write_bytes(first[:-20])  # killed within its last line
    result = invoke(tmp_path, folder, "--seeds", "3")
    assert result.exit_code == 0, result.output
    done = [(row["seed"], row["recommender"], row["position"]) for row in lines(tmp_path)]
    runs = [(seed, name) for seed in "012" for name in ("random", "hyperfd", "nni_tpe")]
    expected = [(*run, position) for run in [*runs[:6], *runs[5:]] for position in "012"]
    assert done == [place for number, place in enumerate(expected) if number != 17]  # the row that was cut off


def test_what_has_changed_is_refused_by_name(tmp_path):
    assert invoke(tmp_path, store(tmp_path / "a"), "--seeds", "1").exit_code == 0
    result = invoke(tmp_path, store(tmp_path / "b", shift=1.0), "--seeds", "1")
    assert result.exit_code == 2 and "identity.json: table toy was" in result.output
    (tmp_path / "out" / "identity.json").write_text("{")
    result = invoke(tmp_path, tmp_path / "a")
    assert result.exit_code == 2 and "identity.json: it cannot be read" in result.output
    (tmp_path / "out" / "identity.json").unlink()
    result = invoke(tmp_path, tmp_path / "a")
    assert result.exit_code == 2 and "is of another program" in result.output


def test_what_is_not_there_is_refused(tmp_path, monkeypatch):
    folder = store(tmp_path / "a")
    result = invoke(tmp_path, folder, only="random,oracle")
    assert result.exit_code == 2 and "no 'oracle'" in result.output
    result = invoke(tmp_path, folder, folder)
    assert result.exit_code == 2 and "same name" in result.output
    monkeypatch.setitem(command.alternatives._HOME, "smac", "no_such_module:SMAC")
    result = invoke(tmp_path, folder, only="random,smac")
    assert result.exit_code == 2
    assert "smac needs a library" in result.output and "--only goes on without it" in result.output
    assert invoke(tmp_path, folder, "--seeds", "1", only="random").exit_code == 0
