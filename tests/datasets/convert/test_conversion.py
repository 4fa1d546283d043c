from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from nni_hyperfd.datasets import coco
from nni_hyperfd.datasets.convert import conversion
from nni_hyperfd.datasets.convert.record import ConvertError
from nni_hyperfd.files import FolderError


@pytest.fixture
def source(tmp_path, save_image):
    """Twenty YOLO images; one unreadable, one named in bytes that are no UTF-8."""
    folder = tmp_path / "source"
    for number in range(20):
        save_image(folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    (folder / "19.png").write_bytes(b"")
    for suffix in (b".png", b".txt"):
        os.rename(os.fsencode(folder) + b"/18" + suffix, os.fsencode(folder) + b"/\xe4" + suffix)
    return folder


def test_the_folder_passes_the_check_of_training(source, tmp_path, recwarn):
    out = tmp_path / "out"
    report = conversion.convert("yolo", source, out)
    assert report["splits"] == {part: {"images": n, "faces": n} for part, n in [("train", 11), ("val", 1), ("test", 7)]}
    assert list(report["changes"]) == ["image unreadable"]
    assert report["annotated"] == {"images": 20, "faces": 20}
    assert report["rule"] == "drawn 6 : 1 : 3 with seed 0, as the source names no splits"
    assert json.loads((out / "report.json").read_text()) == report
    loaded = [coco.load(out, part) for part in ("train", "val", "test")]
    assert [w.category for w in recwarn.list] == [coco.FewFacesWarning]
    names = [image["file_name"] for part in loaded for image in part.images]
    assert len(set(names)) == 19 and sorted(names) == sorted(path.name for path in (out / "images").iterdir())
    assert loaded[0].annotations[0]["bbox"] == [40, 24, 20, 32]
    sources = [image["source"] for part in ("train", "val", "test") for image in _images(out, part)]
    assert "\\xe4.png" in sources and "00.png" in sources


def _images(out, part):
    return json.loads((out / f"{part}.json").read_text())["images"]


def test_landmarks_are_written_as_keypoints(tmp_path, save_image):
    save_image(tmp_path / "in" / "a.png")
    points = [5, 6, 2, 9, 6, 2, 7, 8, 2, 500, 9, 2, 0, 0, 0]
    document = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 20, 20], "keypoints": points}],
        "categories": [{"id": 1, "name": "face"}],
    }
    (tmp_path / "in" / "train.json").write_text(json.dumps(document))
    conversion.convert("coco", tmp_path / "in", tmp_path / "out")
    (annotation,) = coco.load(tmp_path / "out", "train").annotations
    assert annotation["keypoints"] == [5, 6, 2, 9, 6, 2, 7, 8, 2] + [0] * 6 and annotation["num_keypoints"] == 3


def test_an_ended_run_is_continued_to_the_same_result(source, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "out"
    conversion.convert("yolo", source, whole)
    place, calls = conversion.place_image, []

    def full_disk(image, target):
        calls.append(target)
        if len(calls) > 5:
            raise OSError(28, "No space left on device")
        place(image, target)

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "place_image", full_disk)
        with pytest.raises(OSError, match="No space left"):
            conversion.convert("yolo", source, out)
    assert len(list((out / "images").iterdir())) == 5 and not (out / "report.json").exists()
    with pytest.raises(FolderError, match="results of other settings .*seed was 0, is now 1.; name another folder"):
        conversion.convert("yolo", source, out, seed=1)
    conversion.convert("yolo", source, out)
    for name in ("train.json", "val.json", "test.json", "report.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in whole.iterdir())


KILLED = """
import os, signal, sys
from pathlib import Path
from nni_hyperfd.datasets.convert import conversion

def kill_at(event, arguments):
    if event == sys.argv[3] and sys.argv[4] in str(arguments):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill_at)
conversion.convert("yolo", Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("event", "argument"),
    [
        ("os.rename", "/.conversion."),
        ("os.mkdir", "images"),
        ("os.link", "03.png"),
        ("open", "/.val."),
        ("os.rename", "/.report."),
    ],
)
def test_a_killed_run_is_continued(source, tmp_path, event, argument):
    out, whole = tmp_path / "out", tmp_path / "whole"
    killed = subprocess.run([sys.executable, "-c", KILLED, source, out, event, argument])
    assert killed.returncode == -9 and out.exists() and not (out / "report.json").exists()
    conversion.convert("yolo", source, out)
    conversion.convert("yolo", source, whole)
    for name in ("train.json", "val.json", "test.json", "report.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in whole.iterdir())


def test_many_missing_images_are_an_error_unless_they_are_allowed(tmp_path, save_image):
    source = tmp_path / "in"
    save_image(source / "images" / "0.png")
    document = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in range(8)],
        "annotations": [{"image_id": number, "category_id": 1, "bbox": [1, 2, 20, 20]} for number in range(8)],
        "categories": [{"id": 1, "name": "face"}],
    }
    (source / "train.json").write_text(json.dumps(document))
    with pytest.raises(ConvertError, match="7 of 8 images cannot be used .7 x image missing; .*1.png.*searched"):
        conversion.convert("coco", source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    report = conversion.convert("coco", source, tmp_path / "out", allow_missing=True)
    assert report["splits"] == {"train": {"images": 1, "faces": 1}}


def test_what_is_there_is_never_overwritten(source, tmp_path):
    out = tmp_path / "out"
    conversion.convert("yolo", source, out)
    with pytest.raises(FolderError, match="holds a finished run"):
        conversion.convert("yolo", source, out)
    with pytest.raises(FolderError, match="is not empty"):
        conversion.convert("yolo", source, source)


def test_the_command_prints_what_was_dropped(source, tmp_path):
    (source / "19.png").rename(source / "19[b].png")  # what rich would take for bold text
    out, other = tmp_path / "out", tmp_path / "other"

    def hyperfd(*arguments):
        script = "from nni_hyperfd.cli import main; main()"
        command = [sys.executable, "-c", script, "data", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "300"})

    done = hyperfd("convert", "yolo", source, out)
    assert (
        done.returncode == 0
        and "image unreadable" in done.stdout
        and "Splits: drawn 6 : 1 : 3" in done.stdout
        and "report.json" in done.stdout
    )
    assert "19[b].png" in done.stdout
    (tmp_path / "results.json").write_text('[{"image_id": 1, "bbox": [1, 2, 9, 9], "score": 0.9}]')
    done = hyperfd("relabel", out, "val", tmp_path / "results.json")
    assert done.returncode == 0 and done.stdout.startswith("Boxes: 0 replaced, 1 added, 1 unmatched.")
    for arguments, message in [
        (("convert", "yolo", source, out), "holds a finished run"),
        (("convert", "yoolo", source, other), "there is no layout 'yoolo'; use one of coco, voc, yolo"),
        (("convert", "yolo", tmp_path / "none", other), "there is no such folder"),
        (("relabel", out, "valid", tmp_path / "results.json"), "valid.json: cannot be read"),
    ]:
        failed = hyperfd(*arguments)
        assert failed.returncode == 1 and failed.stdout == "" and message in failed.stderr
        assert failed.stderr.count("\n") == 1
