from __future__ import annotations

import json

import torch

from nni_hyperfd.method import features, weights
from nni_hyperfd.space import SearchSpace
from support.command import one_line_error, rows
from support.own_datasets import begin_warm


def test_export_and_import_move_the_experience_once(hyperfd, state, tmp_path):
    file, other = tmp_path / "experience.json", tmp_path / "other" / "state.sqlite"
    assert hyperfd("export", file, "--state", state)[1].startswith("2 tasks written to ")
    assert [task["experiment"] for task in json.loads(file.read_text())["tasks"]] == ["AbCd1234", "second"]
    code, out, _ = hyperfd("import", file, "--state", other)
    assert code == 0 and out.startswith("2 tasks added to ")
    assert hyperfd("import", file, "--state", other)[1].startswith("0 tasks added to ")
    assert rows(hyperfd("status", "--state", other)[1])["trials succeeded"] == "4"


def test_an_export_keeps_what_was_learned(hyperfd, state, tmp_path, space_file):
    file, other = tmp_path / "experience.json", tmp_path / "other.sqlite"
    hyperfd("export", file, "--state", state)
    hyperfd("import", file, "--state", other)
    for arguments in (("--task", 1), ("--preset", "paper"), ("--task", 2, "--preset", "paper")):
        command = ("recommend", "--dry-run", "--space", space_file, *arguments)
        code, out, _ = hyperfd(*command, "--state", other)
        assert code == 0 and out == hyperfd(*command, "--state", state)[1]


def test_import_refuses_what_is_no_export(hyperfd, tmp_path):
    file, other = tmp_path / "experience.json", tmp_path / "other.sqlite"
    one_line_error(hyperfd("import", file, "--state", other), "experience.json", "No such file")
    file.write_text('{"format": "nni_hyperfd experience", "version": 1, "tasks": [3]}')
    one_line_error(hyperfd("import", file, "--state", other), "tasks[0]")
    file.write_bytes(b"\xff\xfe\x00")
    one_line_error(hyperfd("import", file, "--state", other), "this is no JSON")


def test_export_to_a_place_that_cannot_be_written_is_said(hyperfd, state, tmp_path):
    one_line_error(hyperfd("export", state / "file.json", "--state", state), "file.json")
    one_line_error(hyperfd("export", tmp_path, "--state", state), tmp_path, "Is a directory")
    assert hyperfd("export", tmp_path / "new" / "file.json", "--state", state)[0] == 0
    assert (tmp_path / "new" / "file.json").is_file()


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


# -- learning anew ----------------------------------------------------------------------------------------------------


def test_relearn_makes_a_new_version_of_the_encoder(hyperfd, state, space_file):
    code, out, err = hyperfd("relearn", "--space", space_file, "--state", state)
    assert (code, err) == (0, "") and "has learned anew from the results in" in out
    assert rows(hyperfd("status", "--state", state)[1])["encoder versions"] == "3"


def test_relearn_says_how_well_the_warm_up_is_ranked(hyperfd, tmp_path, space_file, lab):
    state = tmp_path / "warm.sqlite"
    begin_warm(state, SearchSpace.from_nni(lab.space), lab.score, 3)
    code, out, _ = hyperfd("relearn", "--space", space_file, "--state", state)
    assert code == 0 and out.startswith("NDCG of the results held out, before and after every check: ")


def test_relearn_in_a_space_without_tasks_says_so(hyperfd, state, tmp_path):
    other = tmp_path / "other.json"
    other.write_text('{"z": {"_type": "choice", "_value": [1, 2]}}')
    one_line_error(
        hyperfd("relearn", "--space", other, "--state", state), "it has no task in the search space of", other
    )
    one_line_error(hyperfd("relearn", "--space", other, "--state", tmp_path / "none"), "there is none yet")
