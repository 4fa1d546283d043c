"""Recommenders of one's own: a real module in a folder, through the real command."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nni_hyperfd.benchmark.own import RecommenderError, Watched, maker
from nni_hyperfd.benchmark.protocol import Protocol, run
from nni_hyperfd.benchmark.tables import load
from nni_hyperfd.cli import app
from nni_hyperfd.recommenders import MeasuredDataset, make
from nni_hyperfd.recommenders.simple import MeanRank

GOOD = '''
import numpy as np

from nni_hyperfd.recommenders import Recommender, ScoringRecommender


class Largest(ScoringRecommender):
    """Likes large vectors."""

    def scores(self):
        return np.linalg.norm(self.candidates.vectors, axis=1)


class Whole(Recommender):
    """The whole interface: in order."""

    def __init__(self, seed):
        self.seed = seed

    def start_task(self, task, candidates):
        self.left, self.waiting = list(range(len(candidates)))[: task.budget], set()

    def ask(self, n=1):
        picks, self.left = self.left[:n], self.left[n:]
        self.waiting.update(picks)
        return picks

    def tell(self, index, performance):
        self.waiting.remove(index)

    def end_task(self, revealed):
        assert not self.waiting
'''
BROKEN = """
from nni_hyperfd.recommenders import Recommender, ScoringRecommender
from my_recommenders import Whole


class Deaf(Whole):
    def tell(self, index, performance):
        pass


class Repeating(Deaf):
    def ask(self, n=1):
        return [0] * n


class Beyond(Deaf):
    def ask(self, n=1):
        return [len(self.left) + 99] * n


class Generous(Deaf):
    def ask(self, n=1):
        return super().ask(n + 1)


class Idle(Deaf):
    def ask(self, n=1):
        return []


class Numpy(Deaf):
    def ask(self, n=1):
        import numpy as np
        return np.arange(n)


class Failing(Whole):
    def tell(self, index, performance):
        raise ValueError("no\\n such result")


class Unmade(Whole):
    def __init__(self, seed):
        raise RuntimeError("no weights")


class Seedless(Whole):
    def __init__(self, number):
        pass


class Abstract(Recommender):
    def ask(self, n=1):
        return []


class Stranger:
    def __init__(self, seed):
        pass


NUMBER = 3
"""


def line_of(text: str) -> str:
    (number,) = (number for number, line in enumerate(BROKEN.splitlines(), start=1) if text in line)
    return str(number)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with modules and a table of three tasks and six configurations."""
    (tmp_path / "my_recommenders.py").write_text(GOOD)
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "unreadable.py").write_text("import no_such_library\n")
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(6)]
    table = tmp_path / "table"
    table.mkdir()
    np.savez(table / "performance.npz", perf=rng.random((3, 6)), tasks=["a", "b", "c"], configs=names)
    rows = "".join(["config_id,u\n", *(f"{name},{u}\n" for name, u in zip(names, rng.random(6), strict=True))])
    (table / "configs.csv.gz").write_bytes(gzip.compress(rows.encode()))
    (table / "tasks.csv").write_text("task_id,m\na,1\nb,2\nc,3\n")
    (table / "meta.json").write_text(json.dumps({"name": "toy", "kinds": {"u": "num"}}))
    return tmp_path


@pytest.fixture
def benchmark(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[int, str]]]:
    """Runs the command in the working folder; its exit code, and what it printed in one line."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])

    def invoke(recommenders: str, *arguments: str) -> tuple[int, str]:
        command = ["benchmark", "table", "--recommenders", recommenders, "--seeds", "2", "--out", "out", *arguments]
        result = CliRunner().invoke(app, command, env={"COLUMNS": "400"})
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.exit_code, " ".join(result.output.replace("│", " ").split())

    yield invoke
    for module in ("my_recommenders", "broken", "unreadable"):
        sys.modules.pop(module, None)


def rows(folder: Path) -> list[dict[str, str]]:
    """Those of the first task of each run."""
    with (folder / "out" / "outcomes.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["position"] == "0"]


def test_ones_own_are_run_beside_the_built_in_ones(folder: Path) -> None:
    names = ["mean_rank", "my_recommenders:Largest", "my_recommenders:Whole"]
    command = [Path(sys.executable).with_name("hyperfd"), "benchmark", "table", "--recommenders", ",".join(names)]
    command += ["--seeds", "2", "--concurrency", "3", "--out", "out"]
    ended = subprocess.run(command, cwd=folder, env={**os.environ, "COLUMNS": "400"}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    found = rows(folder)
    assert [(row["recommender"], row["seed"]) for row in found] == [(name, seed) for name in names for seed in "01"]
    assert all(name in ended.stdout for name in names)


def test_all_stands_for_the_built_in_ones(
    benchmark: Callable[..., tuple[int, str]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nni_hyperfd.recommenders.NAMES", ("knn", "random"))  # the others take longer to learn
    assert benchmark("my_recommenders:Largest,all,random")[0] == 0
    assert list(dict.fromkeys(row["recommender"] for row in rows(folder))) == [
        "my_recommenders:Largest",
        "knn",
        "random",
    ]


def test_the_platforms_own_data_sets_come_as_one_wants_them() -> None:
    class Knowing(MeanRank):
        def know(self, data_sets: Sequence[MeasuredDataset]) -> None:
            self.known = list(data_sets)

    knowing = Knowing()
    Watched("mine", knowing).know([])
    assert knowing.known == [] == knowing.past

    class Refusing(MeanRank):
        def know(self, data_sets: Sequence[MeasuredDataset]) -> None:
            raise ValueError("no such data sets")

    with pytest.raises(RecommenderError, match="mine breaks the contract of recommenders: know raised ValueError"):
        Watched("mine", Refusing()).know([])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent:Mine", r"absent:Mine: the module 'absent' cannot be imported (ModuleNotFoundError: No module named"),
        ("unreadable:Mine", "No module named 'no_such_library', at {folder}/unreadable.py:1)"),
        ("my_recommenders:Mine", "the module 'my_recommenders' ({folder}/my_recommenders.py) has no 'Mine'"),
        ("broken:Stranger", "Stranger is not a subclass of nni_hyperfd.recommenders.Recommender"),
        ("broken:NUMBER", "NUMBER is not a subclass of nni_hyperfd.recommenders.Recommender"),
        ("broken:Abstract", "Abstract does not have end_task, start_task, tell"),
        ("broken:Seedless", "it must be possible to make it as Seedless(seed=0), but"),
        ("oracle", "There is no recommender 'oracle'; choose among random,"),
    ],
)
def test_what_is_no_recommender_is_refused_before_the_first_run(
    folder: Path, benchmark: Callable[..., tuple[int, str]], name: str, message: str
) -> None:
    code, output = benchmark(f"random,{name}")
    assert code == 2 and message.format(folder=folder) in output
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("Repeating", "ask(1) returned [0], but candidate 0 had been picked before in this task"),
        ("Beyond", "but there is no candidate 101 among 0 to 5"),
        ("Generous", "ask(1) returned [0, 1], but the number of picks due was 1"),
        ("Idle", "ask(1) returned [], but the number of picks due was 1"),
        ("Numpy", "ask(1) returned array([0]), but must return a list of int"),
        ("Failing", "tell raised ValueError: no such result, at {folder}/broken.py:" + line_of("such result")),
        ("Unmade", "its constructor raised RuntimeError: no weights, at {folder}/broken.py:" + line_of("no weights")),
    ],
)
def test_who_breaks_the_contract_is_named_and_earlier_runs_are_kept(
    folder: Path, benchmark: Callable[..., tuple[int, str]], kind: str, message: str
) -> None:
    code, output = benchmark(f"random,broken:{kind}", "--budget", "2")
    assert code == 1
    assert f"hyperfd: broken:{kind} breaks the contract of recommenders: " in output
    assert message.format(folder=folder) in output
    assert output.endswith("nni_hyperfd.recommenders.conformance tests the whole contract.")
    assert "Traceback" not in output
    assert [row["recommender"] for row in rows(folder)] == ["random"] * 2


@pytest.mark.parametrize("name", ["random", "knn", "hyperfd"])
def test_being_watched_changes_no_pick(folder: Path, name: str) -> None:
    table = load(folder / "table")
    protocol = Protocol(budget=4, concurrency=2, max_tasks=3)
    plain = list(run(table, protocol, maker(name), 3))
    assert plain == list(run(table, protocol, lambda seed: Watched("mine", make(name, seed)), 3))
