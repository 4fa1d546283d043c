"""Checkpoints: no file in the folder of a run can run code, and a detector is loaded completely or not at all."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from retinaface.build import build_runner
from retinaface.pipelines import use_split
from retinaface.training import train
from retinaface.weight_files import read_checkpoint

from nni_hyperfd.weights import WeightsError

from .test_training import Killed, ScriptedAP, kill_at, scripted


class Code:
    """Unpickling it creates a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.place,)


@pytest.fixture
def config(options):
    """A run of three short epochs, the second of which is the best."""
    return scripted(options, [0.1, 0.3, 0.2, 0.2], epochs=3)


@pytest.fixture(scope="module")
def killed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run is kept that `interrupted` hands out copies of; the first test makes it."""
    return tmp_path_factory.mktemp("killed") / "run"


@pytest.fixture
def interrupted(config, splits, killed_run: Path, tmp_path: Path) -> Path:
    """The folder of a run that was killed in its third epoch."""
    if not killed_run.exists():
        with pytest.raises(Killed):
            train(config, *splits, killed_run, report=kill_at(3))
    assert sorted(path.name for path in killed_run.glob("*.pth")) == [
        "best_face_ap50_epoch_2.pth",
        "epoch_1.pth",
        "epoch_2.pth",
    ]
    return Path(shutil.copytree(killed_run, tmp_path / "run"))


@pytest.fixture
def nothing_allowed() -> Iterator[None]:
    """What other libraries of this process allow `torch.load` to make is forgotten meanwhile."""
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    yield
    torch.serialization.add_safe_globals(allowed)


@pytest.mark.usefixtures("nothing_allowed")
def test_a_checkpoint_is_tensors_and_plain_values(interrupted: Path) -> None:
    """Nothing has to be allowed for it beyond what torch allows by itself."""
    for path in interrupted.glob("*.pth"):
        assert torch.serialization.get_unsafe_globals_in_checkpoint(path) == []
    histories = read_checkpoint(interrupted / "epoch_2.pth")["message_hub"]["log_scalars"]
    assert histories["val/face/ap50"]["values"].tolist() == [0.1, 0.3]


@pytest.mark.parametrize("name", ["epoch_2.pth", "best_face_ap50_epoch_2.pth"])
@pytest.mark.parametrize("form", ["pickle", "archive", "hidden"])
def test_a_planted_pickle_never_runs(
    config, splits, interrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, form: str
) -> None:
    """In place of the last or of the best checkpoint; also when torch is told to allow such files by default."""
    code, planted = Code(tmp_path / "ran"), interrupted / name
    if form == "pickle":
        planted.write_bytes(pickle.dumps(code))
    else:
        torch.save(code if form == "archive" else {**torch.load(planted), "extra": code}, planted)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(WeightsError, match=f"{name} cannot be read as weights: .* could run code; remove it"):
        train(config, *splits, interrupted)
    assert not (tmp_path / "ran").exists()
    with suppress(RuntimeError):  # a bare pickle has no header of torch's, which is looked for after it has run
        torch.load(planted, weights_only=False)
    assert (tmp_path / "ran").exists(), "the file was harmless"


def forge(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    checkpoint = torch.load(path)
    change(checkpoint)
    torch.save(checkpoint, path)


def test_source_code_in_a_checkpoint_never_runs(config, splits, interrupted: Path, tmp_path: Path) -> None:
    """mmengine would execute `meta.config` of a checkpoint that it resumes."""
    source = f"open({str(tmp_path / 'ran')!r}, 'w')"
    forge(interrupted / "epoch_2.pth", lambda checkpoint: checkpoint["meta"].update(config=source))
    assert train(config, *splits, interrupted).epochs == 3
    assert not (tmp_path / "ran").exists()


def test_a_forged_path_of_the_best_checkpoint_is_not_followed(
    config, splits, interrupted: Path, tmp_path: Path
) -> None:
    """The run would delete that file when the third epoch is better."""
    precious = tmp_path / "precious.pth"
    precious.touch()
    info = {"best_ckpt": str(precious)}
    forge(interrupted / "epoch_2.pth", lambda checkpoint: checkpoint["message_hub"]["runtime_info"].update(info))
    ScriptedAP.script = iter([0.9])
    assert train(config, *splits, interrupted).best == 0.9
    assert precious.exists()


def test_a_folder_may_be_moved(config, splits, interrupted: Path, tmp_path: Path) -> None:
    """mmengine stores whole paths; what was best is found where the run is now."""
    moved = Path(shutil.move(interrupted, tmp_path / "moved"))
    runner = build_runner(prepared(config, splits, moved), tmp_path / "elsewhere")
    runner.resume(str(moved / "epoch_2.pth"))
    assert runner.message_hub.get_info("best_ckpt") == str(moved / "best_face_ap50_epoch_2.pth")
    assert runner.message_hub.get_scalar("val/face/ap50").data[0].tolist() == [0.1, 0.3]


def prepared(config, splits, folder: Path):
    for loader, split in zip((config.train_dataloader, config.val_dataloader), splits, strict=True):
        use_split(loader, split, folder)
    return config


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c["state_dict"].pop("neck.merges.0.bn.weight"), "'neck.merges.0.bn.weight' is missing from"),
        (lambda c: c["state_dict"].update(extra=torch.zeros(1)), "'extra' does not belong to"),
        (lambda c: c["state_dict"].update({"neck.merges.0.bn.weight": torch.ones(3)}), r"has shape \(3,\), expected"),
        (lambda c: c["state_dict"].update(extra="text"), "has no detector in it; remove it"),
        (lambda c: c.pop("meta"), "is not a checkpoint of a training run; remove it"),
        (lambda c: c["message_hub"].update(log_scalars={"loss": {"values": 1}}), "is not a checkpoint of a training"),
        (lambda c: c["message_hub"].update(log_scalars=7), "is not a checkpoint of a training run"),
    ],
)
def test_anything_else_than_this_detector_is_refused(
    config, splits, interrupted: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], sentence: str
) -> None:
    forge(interrupted / "epoch_2.pth", change)
    runner = build_runner(prepared(config, splits, interrupted), tmp_path / "other")
    with pytest.raises(WeightsError, match=sentence):
        runner.resume(str(interrupted / "epoch_2.pth"))
