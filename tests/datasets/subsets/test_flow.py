from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from nni_hyperfd.cli import app
from nni_hyperfd.datasets import coco
from nni_hyperfd.datasets.subsets import flow, networks
from nni_hyperfd.datasets.subsets.errors import SubsetsError
from nni_hyperfd.files import FolderError

SPLITS = ("train", "val", "test")
SMALLEST = 12


def contents(folder):
    """What a user reads of it: everything but pictures, as bytes by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".json", ".csv", ".npy")
    }


def table(out):
    return list(csv.DictReader((out / "subsets.csv").open()))


@pytest.fixture(scope="module")
def detector(write_onnx):
    return networks.parse(f"net={write_onnx('detector')},size=64")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, write_source, detector):
    """A source, the finished subsets of it, what the run said and what it returned."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        source = write_source(tmp_path_factory.mktemp("finished") / "source")
        lines: list[str] = []
        out = source.parent / "out"
        report = flow.build([source], out, [detector], smallest=SMALLEST, say=lines.append)
    return source, out, lines, report


def test_subsets_are_data_sets_that_differ(finished):
    source, out, lines, report = finished
    rows = table(out)
    assert len(rows) == report["subsets"] > 10 and report["images"] == 60
    assert {row["feature"] for row in rows} == {"labels", "net"}
    given = [coco.load(source, split) for split in SPLITS]
    known = {}
    for data in given:
        for image in data.images:
            boxes = [one["bbox"] for one in data.annotations if one["image_id"] == image["id"]]
            known[data.image_path(image).read_bytes()] = data.split, boxes
    members = []
    for row in rows:
        loaded = [coco.load(out / row["subset"], split, strict=True) for split in SPLITS]
        assert [str(data.num_images) for data in loaded] == [row[split] for split in SPLITS]
        assert SMALLEST <= sum(data.num_images for data in loaded) <= 30
        assert str(sum(data.num_boxes for data in loaded)) == row["faces"]
        for data in loaded:
            for image in data.images:
                boxes = [one["bbox"] for one in data.annotations if one["image_id"] == image["id"]]
                assert known[data.image_path(image).read_bytes()] == (data.split, boxes)
        members.append({image["file_name"] for data in loaded for image in data.images})
        assert cv2.imread(str(out / f"{row['subset']}.jpg")).shape[1] == 6 * 240
    for place, own in enumerate(members):
        assert all(len(own & other) / len(own | other) < 0.7 for other in members[:place])
    # Bright pictures have small faces: the subsets come apart by both.
    brightness = np.array([float(row["brightness"]) for row in rows])
    size = np.array([float(row["face_size"]) for row in rows])
    assert np.corrcoef(brightness, size)[0, 1] < -0.9 and np.ptp(brightness) > 50
    assert max(float(row["told_apart"]) for row in rows) > 0.95
    assert (out / "images" / next(iter(members[0]))).stat().st_nlink == 2
    assert any("images/s" in line and "cores busy" in line for line in lines)


def test_pictures_of_the_same_are_used_once(source, tmp_path):
    image = cv2.imread(str(source / "images" / "train1.png"))
    cv2.imwrite(str(source / "images" / "test2.png"), np.clip(image.astype(int) + 3, 0, 255))
    assert flow.build([source], tmp_path / "out", smallest=SMALLEST, say=list)["look-alikes"] == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from nni_hyperfd.datasets.subsets import flow, networks

def kill_at(event, arguments):
    if event == sys.argv[4] and sys.argv[5] in str(arguments):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill_at)
flow.build([Path(sys.argv[1])], Path(sys.argv[2]), [networks.parse(sys.argv[3])], smallest=int(sys.argv[6]))
"""


def test_a_run_that_is_killed_at_any_step_goes_on(finished, tmp_path, detector):
    source, whole, *_ = finished
    out = tmp_path / "out"
    model = f"net={detector.path},size=64"
    # Each run goes on where the one before was killed.
    for event, argument in [
        ("os.rename", "/.settings."),
        ("open", "/.net-birch."),
        ("os.link", "out/images"),
        ("os.rename", "/.subsets."),
    ]:
        command = [sys.executable, "-c", KILLED, source, out, model, event, argument, str(SMALLEST)]
        assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == -9
        assert out.exists() and not (out / "report.json").exists()
    done = (out / "parts" / "net-birch.npy").stat().st_mtime_ns
    with pytest.raises(FolderError, match="results of other settings .*seed was 0, is now 1.; name another folder"):
        flow.build([source], out, [detector], smallest=SMALLEST, seed=1)
    with pytest.raises(FolderError, match="results of other settings .*models was"):
        flow.build([source], out, smallest=SMALLEST)
    flow.build([source], out, [detector], smallest=SMALLEST, say=list)
    assert (out / "parts" / "net-birch.npy").stat().st_mtime_ns == done
    assert contents(out) == contents(whole)


def test_a_source_that_has_changed_since_is_refused(source, tmp_path):
    with pytest.raises(SubsetsError, match="cannot be cut from 60"):
        flow.build([source], tmp_path / "out", smallest=40, say=list)
    os.utime(source / "images" / "val1.png", ns=(0, 0))
    with pytest.raises(FolderError, match="results of other settings .*images was"):
        flow.build([source], tmp_path / "out", smallest=40, say=list)


def test_what_does_not_fit_is_refused(source, tmp_path, detector):
    out = tmp_path / "out"
    with pytest.raises(SubsetsError, match="subsets of 40 to 30 images cannot be cut from 60"):
        flow.build([source], out, smallest=40, say=list)
    with pytest.raises(FolderError, match="is not empty"):
        flow.build([source], source, say=list)
    with pytest.raises(SubsetsError, match="two models have the same name"):
        flow.build([source], out, [detector, detector])
    (tmp_path / "other").mkdir()
    for content in ("[1]", "no json", '{"seed": 0}'):
        (tmp_path / "other" / "settings.json").write_text(content)
        with pytest.raises(FolderError, match="settings.json: it was not written by this command"):
            flow.build([source], tmp_path / "other", say=list)
        assert (tmp_path / "other" / "settings.json").read_text() == content
    with pytest.raises(SubsetsError, match="no cluster is fit to be a subset .*too large"):
        flow.build([source], tmp_path / "none", smallest=25, largest=25, say=list)


def test_numbers_that_are_not_finite_are_refused(source, tmp_path, write_onnx, monkeypatch):
    monkeypatch.setitem(networks.PIXELS, "255", (np.nan, 1.0))
    with pytest.raises(SubsetsError, match=r"\.png: net describes it by numbers that are not finite"):
        flow.build([source], tmp_path / "out", [networks.parse(f"net={write_onnx('detector')}")], say=list)


def hyperfd(*arguments):
    """The command in this process; its exit code, what it printed, and its errors."""
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["data", "subsets", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_a_full_disk_is_named_and_the_run_goes_on(source, tmp_path):
    """On a file system of 96 KiB, which is then made larger."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    try:
        code, _, errors = hyperfd(source, disk / "out", "--smallest", SMALLEST)
        assert code == 1 and "No space left on device; make room" in errors and errors.count("\n") == 1
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        assert hyperfd(source, disk / "out", "--smallest", SMALLEST)[0] == 0
    finally:
        subprocess.run(["umount", disk], check=True)


def test_the_command(finished, source, tmp_path):
    code, text, _ = hyperfd(source, tmp_path / "out", "--smallest", SMALLEST)
    assert code == 0 and "Dropped: " in text and "subsets.csv" in text
    assert json.loads((tmp_path / "out" / "report.json").read_text())["subsets"] == len(table(tmp_path / "out"))
    for arguments, message in [
        (finished[:2], "holds a finished run"),
        ((source, tmp_path / "new", "--model", "net"), "is not NAME=FILE"),
        ((tmp_path / "none", tmp_path / "new"), "there is no such annotation file"),
    ]:
        code, text, errors = hyperfd(*arguments)
        assert (code, text) == (1, "") and message in errors and errors.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_packages_that_are_missing_are_named(source, tmp_path, detector, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, _, errors = hyperfd(source, tmp_path / "out", "--model", f"net={detector.path}")
    assert code == 1 and "onnxruntime is not installed; `pip install" in errors


@pytest.mark.long
def test_general_and_wider_give_a_hundred_subsets(real_data, tmp_path):
    weights = real_data / "weights"
    named = [
        f"centerface={weights / 'centerface_dynamic.onnx'}",
        f"early={weights / 'centerface_dynamic.onnx'},layer=387",
        f"yunet={weights / 'yunet_n_dynamic.onnx'}",
    ]
    out = tmp_path / "out"
    flow.build([real_data / "general", real_data / "wider"], out, list(map(networks.parse, named)), smallest=80)
    rows = table(out)
    assert len(rows) >= 100
    spread = {
        name: [float(row[name]) for row in rows]
        for name in ("faces_per_image", "face_size", "brightness", "blur", "told_apart")
    }
    assert max(spread["faces_per_image"]) > 10 * min(spread["faces_per_image"])
    assert max(spread["face_size"]) > 10 * min(spread["face_size"])
    assert max(spread["blur"]) > 3 * min(spread["blur"])
    assert np.ptp(spread["brightness"]) > 40
    assert np.median(spread["told_apart"]) > 0.8
