from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nni_hyperfd.space import SearchSpace
from support.command import cells, one_line_error, rows
from support.own_datasets import begin_warm

SPACES = Path(__file__).parents[2] / "search_spaces"

# -- looking in -------------------------------------------------------------------------------------------------------


def test_status_counts_what_the_state_holds(hyperfd, state):
    code, out, err = hyperfd("status", "--state", state)
    assert (code, err) == (0, "")
    got = rows(out)
    assert got["tasks"] == "2, 2 of them closed"
    assert (got["trials succeeded"], got["trials failed"], got["trials running"], got["trials planned"]) == (*"4000",)
    assert (got["extractor versions"], got["encoder versions"], got["offline data sets"]) == ("1", "2", "0")
    assert got["size"].endswith("MiB")


def test_tasks_lists_one_line_for_each(hyperfd, state):
    code, out, _ = hyperfd("tasks", "--state", state)
    assert code == 0
    first = next(line for line in cells(out) if "AbCd1234" in line)
    assert first[:6] == ["1", "AbCd1234", "hpo", "20", "31", "0.2500"]
    assert 0.4 < float(first[6]) < 0.7 and first[7] == "2" and first[8].startswith("20")
    assert "second" in out


def test_the_default_state_is_the_one_in_the_users_data_folder(hyperfd, tmp_path, two_tasks):
    code, out, _ = hyperfd("status")
    assert code == 0 and str(tmp_path / "data" / "nni_hyperfd" / "state.sqlite") in out and "There is none yet" in out
    assert rows(out)["tasks"] == "0, 0 of them closed"
    assert rows(out)["warm-up, hpo"] == "1020 results on 17 data sets"
    (tmp_path / "data" / "nni_hyperfd").mkdir(parents=True)
    (tmp_path / "data" / "nni_hyperfd" / "state.sqlite").write_bytes(two_tasks)
    assert hyperfd("status")[0] == 0


def test_the_warm_up_of_a_state_is_told_apart(hyperfd, tmp_path, lab):
    state, space = tmp_path / "warm.sqlite", SearchSpace.from_nni(lab.space)
    begin_warm(state, space, lab.score, 3)
    got = rows(hyperfd("status", "--state", state)[1])
    assert got["tasks"] == "0, 0 of them closed" and got["trials succeeded"] == "0"
    assert got["warm-up, hpo"] == "15 results on 3 data sets" and got["offline data sets"] == "3"
    _, out, _ = hyperfd("tasks", "--state", state)
    assert cells(out) == [] and "began with a warm-up of 3 tasks: --warm-up lists them" in out
    _, out, _ = hyperfd("tasks", "--warm-up", "--state", state)
    assert [line[0] for line in cells(out)] == ["1", "2", "3"] and "--warm-up" not in out


def test_a_state_of_an_earlier_format_is_upgraded_and_a_copy_kept(hyperfd, tmp_path):
    state, packed = tmp_path / "state.sqlite", Path(__file__).parents[1] / "state" / "formats" / "format1.sqlite.gz"
    state.write_bytes(gzip.decompress(packed.read_bytes()))
    code, out, _ = hyperfd("status", "--state", state)
    assert code == 0 and rows(out)["tasks"] == "3, 2 of them closed"
    assert (tmp_path / "state.sqlite.format1").exists()


# -- recommend --------------------------------------------------------------------------------------------------------


def test_recommend_dry_run_prints_the_ranking_and_leaves_no_task(hyperfd, state, space_file):
    code, out, err = hyperfd("recommend", "--dry-run", "--state", state, "--space", space_file, "--top", 3)
    assert (code, err) == (0, "")
    assert "Best of 30 candidates" in out and "Ranked without a meta-feature" in out
    lines = cells(out)
    assert [line[0] for line in lines] == ["1", "2", "3"]
    scores, deviations = zip(*(map(float, line[1].split(" ± ")) for line in lines), strict=True)
    assert list(scores) == sorted(scores, reverse=True) and min(deviations) > 0
    assert all(line[2] in "abc" for line in lines)
    assert hyperfd("recommend", "--dry-run", "--state", state, "--space", space_file, "--top", 3)[1] == out
    assert rows(hyperfd("status", "--state", state)[1])["tasks"] == "2, 2 of them closed"


def test_recommend_shows_an_architecture_in_one_column(hyperfd, state):
    for name, columns in {"proxylessnas": 3, "joint": 9}.items():
        code, out, _ = hyperfd(
            "recommend", "--dry-run", "--state", state, "--space", SPACES / f"{name}.json", "--top", 1
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
    one_line_error(hyperfd("recommend", tmp_path, "--task", 1, "--state", state), "leave it out, or DATA")
    one_line_error(hyperfd("recommend", tmp_path / "none", "--state", state), "there is no such folder")
    dry = ("recommend", "--dry-run", "--state", state, "--space")
    one_line_error(hyperfd(*dry, space_file, "--seed", 2**32), "seed: 4294967296 is no whole number from 0 to")
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


# -- states that cannot be used ---------------------------------------------------------------------------------------

COMMANDS = {
    "status": ["status"],
    "tasks": ["tasks"],
    "recommend": ["recommend", "--dry-run", "--space", "{space}"],
    "export": ["export", "{folder}/out.json"],
}


def arguments_of(command, space_file, tmp_path):
    return [part.format(space=space_file, folder=tmp_path) for part in command]


def test_a_missing_state_cannot_be_exported_and_is_not_made(hyperfd, tmp_path):
    missing = tmp_path / "missing.sqlite"
    one_line_error(hyperfd("export", tmp_path / "out.json", "--state", missing), missing, "there is none yet")
    assert not missing.exists() and not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    "command", [["status"], ["tasks"], ["recommend", "--dry-run", "--top", "1"]], ids=lambda c: c[0]
)
def test_on_the_first_day_nothing_fails_for_lack_of_a_state(hyperfd, command, tmp_path):
    missing = tmp_path / "missing.sqlite"
    code, out, err = hyperfd(*command, "--state", missing)
    assert (code, err) == (0, "") and "here is none yet" in out
    assert not missing.exists()
    if command[0] == "recommend":
        assert "Best of 200 candidates" in out and "Ranked without a meta-feature" in out


@pytest.mark.parametrize("command", [*COMMANDS.values(), ["import", "{space}"]], ids=[*COMMANDS, "import"])
def test_a_damaged_state_is_a_one_line_error_and_is_left_as_it_is(hyperfd, command, space_file, tmp_path):
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"garbage" * 999)
    result = hyperfd(*arguments_of(command, space_file, tmp_path), "--state", damaged)
    one_line_error(result, damaged, "damaged")
    assert damaged.read_bytes() == b"garbage" * 999
    one_line_error(hyperfd(*arguments_of(command, space_file, tmp_path), "--state", tmp_path), "cannot open it")


def test_the_command_is_installed(state):
    command = os.path.join(os.path.dirname(sys.executable), "hyperfd")
    done = subprocess.run([command, "status", "--state", str(state)], capture_output=True, text=True)
    assert done.returncode == 0 and "2 of them closed" in done.stdout
    state.write_bytes(b"garbage" * 999)
    done = subprocess.run([command, "status", "--state", str(state)], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("hyperfd: ") and "Traceback" not in done.stderr
