"""The scripts as a user starts them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import benchmark_extract
import benchmark_train
import compare_starts
import evaluate
import numpy as np
import pretrain
import pytest
import torch
import transfer
from finetune import finetune, main
from retinaface.build import load_detector
from retinaface.face_dataset import FaceDataset
from retinaface.options import ScriptError, run_script
from retinaface.parameters import apply_parameters
from retinaface.training import validate

from nni_hyperfd.datasets import coco
from nni_hyperfd.files import FolderError, RowFile
from nni_hyperfd.space import PARAMETERS, Architecture, SearchSpace

from .conftest import TRIAL_CODE


def command_line(options) -> list[str]:
    named = {"data": options.data, "weights": options.weights, "config": options.config, "size": options.size}
    named |= {"eval-size": options.eval_size, "min-face": options.min_face, "epochs": options.epochs}
    named |= {"val-interval": options.val_interval, "batch-size": options.batch_size, "workers": options.workers}
    return [text for name, value in named.items() if value is not None for text in (f"--{name}", str(value))]


def test_a_trial_runs_without_nni(options, tmp_path: Path) -> None:
    """With the defaults; the final result is flat numbers and short strings, as NNI's web UI needs it."""
    command = [
        sys.executable,
        str(TRIAL_CODE / "finetune.py"),
        *command_line(options),
        "--work-dir",
        str(tmp_path / "work"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(TRIAL_CODE.parent)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    output = result.stdout + result.stderr
    assert "Intermediate result: {'default': " in output and "'phase': 'fine-tune'" in output
    assert (tmp_path / "work" / "detector.safetensors").is_file()


def test_a_trial_reports_each_validation_and_returns_the_best(options, tmp_path: Path, monkeypatch) -> None:
    reported: list[dict] = []
    monkeypatch.setattr("nni.report_intermediate_result", reported.append)
    final = finetune(FaceDataset(options), {"optimizer": "Adam", "learning_rate": 3e-3}, tmp_path)
    assert reported == [{"default": final["default"]}]
    assert final.keys() == {"default", "epochs", "seconds", "phase"}
    assert final["epochs"] == 1 and final["phase"] == "fine-tune" and final["seconds"] > 0
    json.dumps(final)


def test_a_trial_refuses_parameters_that_it_does_not_know(options, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown parameters width"):
        finetune(FaceDataset(options), {"width": 0.5}, tmp_path)


def test_a_trial_trains_the_architecture_that_it_is_given(searchable_options, tmp_path: Path, monkeypatch) -> None:
    """It starts from inherited weights, and what it saves is loaded as a detector of that architecture."""
    monkeypatch.setattr("nni.report_intermediate_result", lambda value: None)
    space = SearchSpace.from_nni(json.loads((TRIAL_CODE.parent / "search_spaces" / "joint.json").read_text()))
    (point,) = space.sample(1, np.random.default_rng(0))
    point |= {"optimizer": "SGD", "learning_rate": 1e-12}  # so that the start can still be seen at the end
    assert finetune(FaceDataset(searchable_options), point, tmp_path)["epochs"] == 1
    config = apply_parameters(searchable_options.load_config(), point)
    tuned = load_detector(config, tmp_path / "detector.safetensors").state_dict()
    start = load_detector(config, searchable_options.weights).state_dict()
    learned = [name for name in start if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    for name in learned:
        torch.testing.assert_close(tuned[name], start[name])


def test_a_trial_refuses_an_architecture_over_the_limit(searchable_options, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the space has those below 730 M"):
        finetune(FaceDataset(searchable_options), {name: p.values[-1] for name, p in PARAMETERS.items()}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_pretraining_writes_a_detector_to_start_from(options, tmp_path: Path, capsys) -> None:
    arguments = [text for text in command_line(options) if text not in ("--weights", options.weights)]
    best = pretrain.main([*arguments, "--out", str(tmp_path / "start.safetensors")])
    assert 0 <= best <= 1 and "AP@50" in capsys.readouterr().out
    load_detector(options.load_config(), tmp_path / "start.safetensors")


def test_pretraining_may_write_the_mean_of_the_weights_before_and_after(options, tmp_path: Path) -> None:
    out = {name: tmp_path / f"{name}.safetensors" for name in ("after", "mean")}
    pretrain.main([*command_line(options), "--out", str(out["after"])])
    pretrain.main([*command_line(options), "--average", "--out", str(out["mean"])])
    before, after, mean = (
        load_detector(options.load_config(), file).state_dict() for file in (options.weights, *out.values())
    )
    for name, tensor in mean.items():
        wanted = (before[name] + after[name]) / 2 if tensor.is_floating_point() else before[name]
        torch.testing.assert_close(tensor, wanted)
    unnamed = [text for text in command_line(options) if text not in ("--weights", options.weights)]
    with pytest.raises(ScriptError, match="--average needs the detector that training starts from, --weights"):
        pretrain.main([*unnamed, "--average", "--out", str(tmp_path / "none.safetensors")])


def test_benchmark_counts_both_in_one_run(options, capsys) -> None:
    whole, bare = benchmark_extract.main([*command_line(options), "--limit", "4", "--repeats", "1"])
    assert whole > 0 and bare > 0
    assert "4 images: extract" in capsys.readouterr().out


def test_starts_are_compared_on_equal_terms_and_only_what_is_missing_is_run(searchable_options, tmp_path: Path, capsys):
    out = tmp_path / "starts.csv"
    command = [*command_line(searchable_options), "--out", str(out), "--architectures", "1"]
    compare_starts.main(command)
    assert "plain (weights=" in capsys.readouterr().out
    first, second = rows = RowFile(out, compare_starts.COLUMNS).rows
    name = str(Architecture.of(compare_starts.architectures(1)[0]))
    runs = [(row["data"], row["architecture"], row["seed"], row["start"]) for row in rows]
    assert runs == [("plain", name, "0", "inherited"), ("plain", name, "0", "random")]
    assert first["settings"] == second["settings"] and " size=64 " in first["settings"]
    assert all(0 <= float(row["ap50"]) <= 1 and row["epochs"] == "1" for row in rows)
    whole = out.read_text()
    out.write_text("".join(whole.splitlines(keepends=True)[:-1]))  # as if it had been stopped in the second run
    compare_starts.main(command)
    again = RowFile(out, compare_starts.COLUMNS).rows
    assert again[0] == first and {**again[1], "seconds": ""} == {**second, "seconds": ""}


def test_two_starts_are_compared(searchable_options, detector_file: Path, tmp_path: Path, capsys) -> None:
    """Of the largest network's random weights and half a MobileNetV2's; the first run is not done again."""
    out = tmp_path / "starts.csv"
    command = [*command_line(searchable_options), "--out", str(out), "--architectures", "1"]
    compare_starts.main(command)
    compare_starts.main([*command, "--against", str(detector_file)])
    starts = [row["start"] for row in RowFile(out, compare_starts.COLUMNS).rows]
    assert starts[:2] == ["inherited", "random"] and len(starts) == 3 and starts[2].startswith("random-")
    assert f" {starts[2]}; gain " in capsys.readouterr().out


def test_the_comparison_of_starts_by_hand() -> None:
    """Two pairs with gains 0.5 and 0.1, and a run whose other half is missing."""
    aps = {("a", "inherited"): 0.6, ("a", "random"): 0.1, ("b", "inherited"): 0.3, ("b", "random"): 0.2}
    aps |= {("c", "inherited"): 0.9}
    common = {"data": "toon", "settings": "size=160", "seed": "0"}
    measured = [{**common, "architecture": a, "start": s, "ap50": str(ap)} for (a, s), ap in aps.items()]
    (line,) = compare_starts.summary(measured)
    assert line == ("toon (size=160): 2 pairs, AP@50 0.450 inherited, 0.150 random; gain 0.300 ± 0.200, above 0 in 2")


def test_training_benchmark_counts_both_in_one_run(options, capsys) -> None:
    measured = benchmark_train.main([*command_line(options), "--limit", "4", "--repeats", "1"])
    assert list(measured) == ["training", "evaluation"] and min(map(min, measured.values())) > 0
    assert "s to the first step" in capsys.readouterr().out


def test_pretraining_on_several_data_sets(options, write_folder, tmp_path: Path) -> None:
    """One run on all of them; the second call finds it done."""
    face = {"bbox": [10, 10, 40, 40]}
    for split in ("train", "val"):
        other = write_folder([((96, 96), [face])], split)
    out = tmp_path / "start.safetensors"
    arguments = [text for text in command_line(options) if text not in ("--weights", options.weights)]
    best = pretrain.main([*arguments, "--also", str(other), "--out", str(out)])
    trained = torch.load(tmp_path / "start.work" / "epoch_1.pth", weights_only=True)
    assert trained["meta"]["iter"] == 3, "8 + 1 images in batches of 4"
    stamp = (tmp_path / "start.work" / "epoch_1.pth").stat().st_mtime_ns
    assert pretrain.main([*arguments, "--also", str(other), "--out", str(out)]) == best
    assert (tmp_path / "start.work" / "epoch_1.pth").stat().st_mtime_ns == stamp


def test_evaluation_prints_a_row_for_each_data_set(options, tmp_path: Path, capsys) -> None:
    (tmp_path / "all").mkdir()
    for name in ("a", "b"):
        shutil.copytree(options.data, tmp_path / "all" / name)
    arguments = [*command_line(options), "--data", str(tmp_path / "all"), "--split", "val"]
    table = evaluate.main(arguments)
    assert list(table) == ["a", "b"] and table["a"] == table["b"]
    assert table["a"]["AP@50"] == validate(options.load_config(), coco.load(options.data, "val"))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert lines[0] == "| data set | images | faces | AP@50 | pycocotools |" and len(lines) == 4
    assert lines[2].startswith("| a | 4 | ")
    with pytest.raises(ScriptError, match=r"nor a folder in it has a test\.json"):
        evaluate.main([*command_line(options), "--split", "test"])


def test_transfer_goes_on_where_it_was_stopped(options, tmp_path: Path, capsys) -> None:
    """Two seeds, the second in a second call; the rows that are there are neither measured nor drawn again. What is
    tested and drawn has the shape that the parameters gave it."""
    data = tmp_path / "all" / "faces"
    shutil.copytree(options.data, data)
    shutil.copy(data / "val.json", data / "test.json")
    parameters = ["--parameters", '{"neck": "pafpn", "test_scales": 3}']
    arguments = [*command_line(options), "--data", str(data.parent), "--out", str(tmp_path / "out"), *parameters]
    transfer.main([*arguments, "--seeds", "1"])
    (figure,) = (tmp_path / "out").glob("*.png")
    assert figure.name == "faces.png"
    written, stamp = (tmp_path / "out" / "transfer.csv").read_text(), figure.stat().st_mtime_ns
    transfer.main([*arguments, "--seeds", "2"])
    rows = (tmp_path / "out" / "transfer.csv").read_text()
    assert rows.startswith(written) and len(rows.splitlines()) == 3 and figure.stat().st_mtime_ns == stamp
    before = {row.split(",")[2] for row in rows.splitlines()[1:]}
    assert before == {str(validate(options.load_config(), coco.load(data, "test")))}
    assert re.search(r"\| faces \| \d\.\d{3} \| \d\.\d{3} \| \d\.\d{3} \| 2 \|", capsys.readouterr().out)
    with pytest.raises(ScriptError, match="--only names moon; .* has the data sets faces"):
        transfer.main([*arguments, "--only", "faces", "moon"])
    with pytest.raises(FolderError, match="holds results of other settings"):
        transfer.main([*arguments, "--epochs", "2"])


def test_mmdets_own_tools_take_the_configs(options, tmp_path: Path) -> None:
    """As separate programs, since on mmcv-lite even their imports need what mmdet_tool.py does first."""
    (tmp_path / "mine.py").write_text(
        f"""
_base_ = {str(options.config)!r}
loader = {{"num_workers": 0, "persistent_workers": False}}
train_dataloader = {{**loader, "batch_size": 4}}
train_dataloader["dataset"] = {{"indices": 4}}
val_dataloader = loader
test_dataloader = {{**loader, "dataset": {{"ann_file": "val.json"}}}}
train_cfg = {{"max_epochs": 1}}
"""
    )
    places = {"train": (3, "(64,64)"), "val": (1, "96"), "test": (1, "96")}
    sizes = [f"{loader}_dataloader.dataset.pipeline.{at}.scale={size}" for loader, (at, size) in places.items()]
    environment = {**os.environ, "PYTHONPATH": str(TRIAL_CODE.parent), "HYPERFD_DATA": str(options.data)}
    values = []
    for arguments in (["train", "mine.py"], ["test", "mine.py", "work/epoch_1.pth"]):
        command = [sys.executable, str(TRIAL_CODE / "mmdet_tool.py"), *arguments, "--work-dir", "work"]
        command += ["--cfg-options", *sizes]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        values += re.findall(r"face/ap50: (\S+)", result.stdout + result.stderr)
    assert len(values) == 2 and values[0] == values[1]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": "nowhere"}, "nowhere/train.json: there is no such annotation file"),
        ({"weights": "nothing.pth"}, "there is no weights file nothing.pth"),
    ],
)
def test_what_a_user_can_put_right_is_one_sentence(options, tmp_path: Path, changes: dict, sentence: str) -> None:
    arguments = [*command_line(dataclasses.replace(options, **changes)), "--work-dir", str(tmp_path)]
    with pytest.raises(SystemExit, match=sentence):
        run_script(lambda: main(arguments))


def test_parameters_that_no_trial_can_have_are_one_sentence(options) -> None:
    largest = {name: max(values) for name, (_, _, values) in PARAMETERS.items()}
    for parameters, sentence in (
        ({"learning_rate": -1}, "learning_rate is -1; it must be above 0"),
        (largest, "the space has those below 730 M"),
    ):
        with pytest.raises(SystemExit, match=sentence):
            run_script(lambda given=parameters: apply_parameters(options.load_config(), given))


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_script(lambda: 1 / 0)
