from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nni_hyperfd.cli import state as cli
from nni_hyperfd.datasets import coco, synthetic
from nni_hyperfd.method import features, weights


@pytest.fixture
def hyperfd(capsys, monkeypatch, tmp_path):
    """The command as the shell runs it, in this process: exit code, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(cli, "console", cli.Console(width=200))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["hyperfd", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
            raise SystemExit(0)
        out, err = capsys.readouterr()
        return end.value.code or 0, out, err

    return run


@pytest.fixture(scope="module")
def two_tasks(make_lab, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        lab = make_lab(tmp_path_factory.mktemp("cli"), patch)
        lab.run(lab.tuner("AbCd1234", budget=2))
        lab.run(lab.tuner("second", budget=2), lab.dataset(2))
        return lab.content()


@pytest.fixture
def state(tmp_path, two_tasks):
    path = tmp_path / "state.sqlite"
    path.write_bytes(two_tasks)
    return path


@pytest.fixture
def space_file(tmp_path, lab):
    path = tmp_path / "space.json"
    path.write_text(json.dumps(lab.space))
    return path


def one_line_error(result, *words):
    code, out, err = result
    assert code == 1 and out == ""
    assert err.startswith("hyperfd: ") and err.count("\n") == 1 and "Traceback" not in err
    for word in words:
        assert str(word) in err
    return err


# -- looking in -------------------------------------------------------------------------------------------------------


def rows(table):
    """Label -> text of a table's two-column lines."""
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if "│" in line]
    return {label: text for label, text in cells}


def test_status_counts_what_the_state_holds(hyperfd, state):
    code, out, err = hyperfd("status", "--state", state)
    assert (code, err) == (0, "")
    got = rows(out)
    assert got["tasks"] == "2, 2 of them closed"
    assert (got["trials succeeded"], got["trials failed"], got["trials running"], got["trials planned"]) == (*"4000",)
    assert (got["extractor versions"], got["ranker versions"], got["offline data sets"]) == ("3", "2", "0")
    assert got["size"].endswith("MiB")


def test_tasks_lists_one_line_for_each(hyperfd, state):
    code, out, _ = hyperfd("tasks", "--state", state)
    assert code == 0
    first = next(line for line in out.splitlines() if "AbCd1234" in line)
    cells = [cell.strip() for cell in first.split("│")[1:-1]]
    assert cells[:6] == ["1", "AbCd1234", "hpo", "20", "31", "0.2500"]
    assert 0.4 < float(cells[6]) < 0.7 and cells[7] == "2" and cells[8].startswith("20")
    assert "second" in out


def test_the_default_state_is_the_one_in_the_users_data_folder(hyperfd, tmp_path, two_tasks):
    one_line_error(hyperfd("status"), tmp_path / "data" / "nni_hyperfd" / "state.sqlite", "there is none yet")
    (tmp_path / "data" / "nni_hyperfd").mkdir(parents=True)
    (tmp_path / "data" / "nni_hyperfd" / "state.sqlite").write_bytes(two_tasks)
    assert hyperfd("status")[0] == 0


# -- recommend --------------------------------------------------------------------------------------------------------


def test_recommend_dry_run_prints_the_ranking_and_leaves_no_task(hyperfd, state, space_file):
    code, out, err = hyperfd("recommend", "--dry-run", "--state", state, "--space", space_file, "--top", 3)
    assert (code, err) == (0, "")
    assert "Best of 30 candidates" in out and "Ranked without a meta-feature" in out
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert [line[0] for line in lines] == ["1", "2", "3"]
    scores, deviations = zip(*(map(float, line[1].split(" ± ")) for line in lines), strict=True)
    assert list(scores) == sorted(scores, reverse=True) and min(deviations) > 0
    assert all(line[2] in "abc" for line in lines)
    assert hyperfd("recommend", "--dry-run", "--state", state, "--space", space_file, "--top", 3)[1] == out
    assert rows(hyperfd("status", "--state", state)[1])["tasks"] == "2, 2 of them closed"


def test_recommend_shows_an_architecture_in_one_column(hyperfd, state):
    spaces = Path(__file__).parents[2] / "search_spaces"
    for name, columns in {"proxylessnas": 3, "joint": 9}.items():
        code, out, _ = hyperfd(
            "recommend", "--dry-run", "--state", state, "--space", spaces / f"{name}.json", "--top", 1
        )
        (line,) = [line for line in out.splitlines() if "│ 1 " in line]
        assert code == 0 and line.count("│") == columns + 1
        assert "e1k3" in out


def test_recommend_for_a_past_task_names_the_nearest(hyperfd, state, space_file):
    arguments = ("recommend", "--dry-run", "--state", state, "--space", space_file)
    code, out, _ = hyperfd(*arguments, "--task", 1)
    assert code == 0 and "Ranked without" not in out
    near = [line.split() for line in out.splitlines() if "near:" in line]
    assert [words[2].rstrip(",") for words in near] == ["1", "2"]
    assert float(near[0][4].rstrip(",")) < 1e-3 < float(near[1][4].rstrip(","))
    assert all(words[5] == "weight" for words in near)
    _, paper, _ = hyperfd(*arguments, "--task", 1, "--preset", "paper")
    assert "near: task 1, distance 0.000\n" in paper
    one_line_error(hyperfd(*arguments, "--task", 9), "no task 9 with a meta-feature")


def test_recommend_says_what_is_wrong_with_its_arguments(hyperfd, state, space_file, tmp_path):
    one_line_error(hyperfd("recommend", "--state", state, "--space", space_file), "add --dry-run")
    dry = ("recommend", "--dry-run", "--state", state, "--space")
    one_line_error(hyperfd(*dry, tmp_path / "none.json"), "none.json", "No such file")
    bad = tmp_path / "bad.json"
    for content, words in {
        "{": "this is no JSON",
        "[]": "expect a dict",
        "{}": "it has no parameters",
        '{"x": {"_type": "normal", "_value": [0, 1]}}': "'x' of type 'normal'",
        '{"x": {"_type": "uniform", "_value": [0, Infinity]}}': "'x' holds a number that is not finite",
    }.items():
        bad.write_text(content)
        one_line_error(hyperfd(*dry, bad), words)


# -- moving experience ------------------------------------------------------------------------------------------------


def test_export_and_import_move_the_experience_once(hyperfd, state, tmp_path):
    file, other = tmp_path / "experience.json", tmp_path / "other" / "state.sqlite"
    assert hyperfd("export", file, "--state", state)[1].startswith("2 tasks written to ")
    assert [task["experiment"] for task in json.loads(file.read_text())["tasks"]] == ["AbCd1234", "second"]
    code, out, _ = hyperfd("import", file, "--state", other)
    assert code == 0 and out.startswith("2 tasks added to ")
    assert hyperfd("import", file, "--state", other)[1].startswith("0 tasks added to ")
    assert rows(hyperfd("status", "--state", other)[1])["trials succeeded"] == "4"


def test_import_refuses_what_is_no_export(hyperfd, tmp_path):
    file, other = tmp_path / "experience.json", tmp_path / "other.sqlite"
    one_line_error(hyperfd("import", file, "--state", other), "experience.json", "No such file")
    file.write_text('{"format": "nni_hyperfd experience", "version": 1, "tasks": [3]}')
    one_line_error(hyperfd("import", file, "--state", other), "tasks[0]")
    file.write_bytes(b"\xff\xfe\x00")
    one_line_error(hyperfd("import", file, "--state", other), "this is no JSON")


def test_export_to_a_place_that_cannot_be_written_is_said(hyperfd, state, tmp_path):
    one_line_error(hyperfd("export", tmp_path / "none" / "file.json", "--state", state), "No such file")


def test_offline_adds_data_sets(hyperfd, state, tmp_path, lab):
    file = tmp_path / "wider.safetensors"
    packed = features.pack(lab.dataset(3).image_features(20, 0), torch.tensor([20.0, 31.0]))
    file.write_bytes(weights.dumps(packed))
    code, out, _ = hyperfd("offline", file, "--state", state)
    assert code == 0 and out.startswith("1 offline data sets added")
    assert rows(hyperfd("status", "--state", state)[1])["offline data sets"] == "1"
    file.write_bytes(b"broken")
    one_line_error(hyperfd("offline", file, "--state", state), "offline data set wider", "safetensors")
    one_line_error(hyperfd("offline", tmp_path / "none", "--state", state), "No such file")


# -- states that cannot be used ---------------------------------------------------------------------------------------

COMMANDS = {
    "status": ["status"],
    "tasks": ["tasks"],
    "recommend": ["recommend", "--dry-run", "--space", "{space}"],
    "export": ["export", "{folder}/out.json"],
}


def arguments_of(command, space_file, tmp_path):
    return [part.format(space=space_file, folder=tmp_path) for part in command]


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_missing_state_is_a_one_line_error_and_is_not_made(hyperfd, command, space_file, tmp_path):
    missing = tmp_path / "missing.sqlite"
    result = hyperfd(*arguments_of(command, space_file, tmp_path), "--state", missing)
    one_line_error(result, missing, "there is none yet")
    assert not missing.exists() and not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("command", [*COMMANDS.values(), ["import", "{space}"]], ids=[*COMMANDS, "import"])
def test_a_damaged_state_is_a_one_line_error_and_is_left_as_it_is(hyperfd, command, space_file, tmp_path):
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"garbage" * 999)
    result = hyperfd(*arguments_of(command, space_file, tmp_path), "--state", damaged)
    one_line_error(result, damaged, "damaged")
    assert damaged.read_bytes() == b"garbage" * 999
    one_line_error(hyperfd(*arguments_of(command, space_file, tmp_path), "--state", tmp_path), "cannot open it")


# -- the rest ---------------------------------------------------------------------------------------------------------


def test_synthetic_draws_a_data_set_and_names_a_wrong_domain(hyperfd, tmp_path):
    folder = tmp_path / "drawn"
    code, out, _ = hyperfd("synthetic", folder, "--domain", synthetic.DOMAINS[0], "--images", 2, 1, 0, "--size", 64)
    assert code == 0 and str(folder) in out
    assert len(list((folder / "images").iterdir())) == 3
    assert len(coco.load(folder, "train").images) == 2
    one_line_error(hyperfd("synthetic", tmp_path / "x", "--domain", "nonsense"), "no synthetic domain 'nonsense'")


def test_help_and_unknown_commands(hyperfd):
    code, out, _ = hyperfd("--help")
    assert code == 0
    for name in ("status", "tasks", "recommend", "export", "import", "offline", "synthetic", "register", "warmup"):
        assert name in out
    code, _, err = hyperfd("nonsense")
    assert code == 2 and "nonsense" in err


def test_the_command_is_installed(state):
    command = os.path.join(os.path.dirname(sys.executable), "hyperfd")
    done = subprocess.run([command, "status", "--state", str(state)], capture_output=True, text=True)
    assert done.returncode == 0 and "2 of them closed" in done.stdout
    done = subprocess.run([command, "status", "--state", f"{state}-none"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("hyperfd: ") and "Traceback" not in done.stderr
