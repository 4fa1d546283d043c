"""Measuring configurations on several data sets: what is written, what is gone on with, what fails."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import measure
import psutil
import pytest
from retinaface.options import ScriptError, run_script

from nni_hyperfd.benchmark import measured
from nni_hyperfd.datasets import synthetic
from nni_hyperfd.files import FolderError, locked

from .conftest import TRIAL_CODE
from .test_scripts import command_line


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("domains")
    for seed, name in enumerate(("one", "two")):
        synthetic.make(folder / name, "plain", images=(4, 2, 2), size=96, seed=seed)
    return folder


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """Two configurations; with the one the loss does not stay finite."""
    path = tmp_path / "space.json"
    values = {"optimizer": ["SGD"], "learning_rate": [1e-3, 1e30]}
    path.write_text(json.dumps({name: {"_type": "choice", "_value": choices} for name, choices in values.items()}))
    return path


@pytest.fixture
def arguments(options, domains: Path, space: Path, tmp_path: Path) -> list[str]:
    own = ["--data", str(domains), "--space", str(space), "--out", str(tmp_path / "out"), "--processes", "1"]
    return [
        *command_line(options),
        *own,
        "--batch-size",
        "2",
        "--configurations",
        "2",
        "--repeated",
        "1",
        "--seeds",
        "2",
    ]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_order_is_balanced() -> None:
    order = list(measure.in_turn(["x", "y"], ["a", "b", "c"], 2, [5, 6]))
    first = [(domain, name, 5) for name in ("start", "a", "b", "c") for domain in ("x", "y")]
    assert order == first + [(domain, name, 6) for name in ("a", "b") for domain in ("x", "y")]
    assert list(measure.in_turn(["x"], ["a"], 3, [0])) == [("x", "start", 0), ("x", "a", 0)]


def test_the_best_of_each_data_set_are_repeated() -> None:
    def row(domain: str, name: str, val: float | str, seed: int = 5) -> dict[str, str]:
        return {"domain": domain, "configuration": name, "seed": str(seed), "val": str(val), "status": "measured"}

    rows = [
        row("x", "start", 1.0),
        row("x", "a", 0.5),
        row("x", "b", 0.7),
        row("x", "c", 0.6),
        row("x", "a", 0.9, seed=6),
        row("y", "a", 0.2),
        {**row("y", "b", ""), "status": "failed"},
        row("z", "a", 0.2),
    ]
    keys = list(measure.repeats_of_best(rows, ["x", "y"], ["a", "b", "c"], 2, [5, 6, 7]))
    assert keys == [
        ("x", "b", 6),
        ("y", "a", 6),
        ("x", "b", 7),
        ("y", "a", 7),
        ("x", "c", 6),
        ("x", "c", 7),
    ]
    assert list(measure.repeats_of_best(rows, ["x"], ["a"], 0, [5, 6])) == []


def test_fewer_configurations_are_the_first_of_more() -> None:
    for name in ("hpo", "proxylessnas"):
        space = measure.read_space(TRIAL_CODE.parent / "search_spaces" / f"{name}.json")
        some, more = measure.drawn(space, 5), measure.drawn(space, 20)
        assert list(more.items())[:5] == list(some.items()) and len({*map(str, more.values())}) == 20
    with pytest.raises(ScriptError, match="has 216 configurations only"):
        measure.drawn(measure.read_space(TRIAL_CODE.parent / "search_spaces" / "hpo.json"), 217)


def test_a_killed_run_goes_on_and_a_failed_trial_is_a_row(arguments: list[str], tmp_path: Path, capsys) -> None:
    """A real kill of the whole run as soon as it has a row; the second call does the rest, the third nothing."""
    out = tmp_path / "out"
    command = [sys.executable, "-u", str(TRIAL_CODE / "measure.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(TRIAL_CODE.parent)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True) as run:
        first = list(islice(run.stdout, 2))
        os.killpg(run.pid, signal.SIGKILL)
    assert first[0] == "8 trials, 0 of them done already\n" and first[1].startswith("1/8 one start 0: AP@50 ")
    with (out / "trials.csv").open("a") as file:
        file.write("two,c0000,0,0.")  # as if the kill had come while a row was written
    measure.main(arguments)
    found = rows(out)
    assert "0:00:00 left" in capsys.readouterr().out
    expected = list(measure.in_turn(["one", "two"], ["c0000", "c0001"], 1, [0, 1]))
    assert [(row["domain"], row["configuration"], int(row["seed"])) for row in found] == expected
    bad = next(
        n for n, c in json.loads((out / "configurations.json").read_text()).items() if c["learning_rate"] == 1e30
    )
    for row in found:
        if row["configuration"] == bad:
            assert row["status"] == "failed" and not row["val"] and "lower the learning rate" in row["reason"]
        else:
            assert row["status"] == "measured" and 0 <= float(row["val"]) <= 1 and 0 <= float(row["test"]) <= 1
        assert row["epochs"] == {"start": "0", bad: ""}.get(row["configuration"], "1")
    written = (out / "trials.csv").read_text()
    measure.main(arguments)
    assert (out / "trials.csv").read_text() == written
    assert len(measured.read(out).trials) == 8
    good = "c0001" if bad == "c0000" else "c0000"
    measure.main([*arguments, "--best", "2"])
    added = rows(out)[8:]
    assert {(row["domain"], row["configuration"], row["seed"]) for row in added} == (
        set() if good == "c0000" else {("one", good, "1"), ("two", good, "1")}
    )


def test_a_trial_does_not_depend_on_those_before_it(options, domains: Path) -> None:
    """As many of them share a process: random numbers, message hubs and what else is global begin anew."""
    measurements = [
        measure.Measurement(dataclasses.replace(options, data=domains / name, seed=seed), {"optimizer": "Adam"})
        for name, seed in (("one", 3), ("two", 4), ("one", 3))
    ]
    first, _, again = map(measure.fine_tuned, measurements)
    assert first == again


def test_other_settings_are_refused_by_name(arguments: list[str], space: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(measure, "run", lambda *_: None)  # what is measured is not what this is about
    measure.main(arguments)
    measure.main([*arguments, "--only", "two", "--seeds", "3"])
    assert measured.read(tmp_path / "out").space == measure.read_space(space)
    for changes, error, sentence in (
        (["--size", "96"], FolderError, "size was 64, is now 96"),
        (["--only", "three"], ScriptError, "--only names three; .* has the data sets one, two"),
        (["--configurations", "3"], ScriptError, "2 configurations only"),
    ):
        with pytest.raises(error, match=sentence):
            measure.main([*arguments, *changes])
    space.write_text(json.dumps({"learning_rate": {"_type": "choice", "_value": [1e-3, 3e-3]}}))
    with pytest.raises(FolderError, match=r"other settings .*: space was \"hpo [0-9a-f]{12}\", is now \"hpo "):
        measure.main(arguments)
    space.write_text('{"width": {"_type": "choice", "_value": [1, 2]}}')
    with pytest.raises(ValueError, match="unknown parameters width"):
        measure.main(arguments)
    space.write_text("{")
    with pytest.raises(ScriptError, match="--space: .* cannot be read as a search space"):
        measure.main(arguments)


def test_two_runs_do_not_fill_one_folder(arguments: list[str], tmp_path: Path) -> None:
    """The second one ends with a sentence, as its user can put it right."""
    with locked(tmp_path / "out"), pytest.raises(SystemExit, match="out: another process is working on it"):
        run_script(lambda: measure.main(arguments))


def test_an_architecture_inherits_and_has_its_flops(searchable_options, domains: Path) -> None:
    space = measure.read_space(TRIAL_CODE.parent / "search_spaces" / "proxylessnas.json")
    (parameters,) = measure.drawn(space, 1).values()
    row = measure.measure(
        measure.Measurement(dataclasses.replace(searchable_options, data=domains / "one"), parameters)
    )
    assert row["status"] == "measured" and 0 < row["mflops"] < 730 and row["epochs"] == 1


def test_a_trial_whose_process_is_killed_is_a_row(options, tmp_path: Path) -> None:
    """Killed for certain within the trial, which waits for its annotations; another process does the next one."""
    (tmp_path / "waiting").mkdir()
    os.mkfifo(tmp_path / "waiting" / "train.json")
    measurements = [
        measure.Measurement(dataclasses.replace(options, data=tmp_path / name), {}) for name in ("waiting", "nowhere")
    ]
    with ThreadPoolExecutor(1) as pool, contextlib.closing(measure.in_parallel(measurements, 1)) as results:
        first = pool.submit(next, results)
        with (tmp_path / "waiting" / "train.json").open("w"):  # until a trial reads
            (process,) = multiprocessing.active_children()
            os.kill(process.pid, signal.SIGKILL)
            place, row = first.result()
        assert place == 0 and row["status"] == "failed" and "its process was killed" in row["reason"]
        # That there is no such data set is no result of a trial: the run ends.
        with pytest.raises(ScriptError, match="a trial ended the run with status 1; see above"):
            next(results)
    assert not multiprocessing.active_children()


@pytest.mark.long
def test_a_run_that_is_told_to_end_takes_its_processes_with_it(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, str(TRIAL_CODE / "measure.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(TRIAL_CODE.parent), "TMPDIR": str(tmp_path / "tmp")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline().startswith("8 trials") and run.stdout.readline().startswith("1/8 ")
        children = psutil.Process(run.pid).children(recursive=True)
        run.terminate()
        assert "stopped; the same command goes on" in run.stderr.read() and run.wait() == 1
    assert children and not psutil.wait_procs(children, timeout=60)[1]
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp] can't allocate memory: you tried 1 TB")]
)
def test_a_trial_that_runs_out_of_memory_is_a_row(options, monkeypatch, error: Exception) -> None:
    def fail(measurement: measure.Measurement) -> None:
        raise error

    monkeypatch.setattr(measure, "fine_tuned", fail)
    row = measure.measure(measure.Measurement(options, {}))
    assert row["status"] == "failed" and "memory" in row["reason"] and row["val"] == ""


def test_other_errors_of_a_trial_are_not_taken_for_its_result(options, monkeypatch) -> None:
    def fail(measurement: measure.Measurement) -> None:
        raise RuntimeError("shapes do not agree")

    monkeypatch.setattr(measure, "fine_tuned", fail)
    with pytest.raises(RuntimeError, match="shapes do not agree"):
        measure.measure(measure.Measurement(options, {}))
