"""The whole road on real faces: NNI, the advisor, MMDetection trials from WIDER-trained weights, two data sets."""

from __future__ import annotations

import base64
import json
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nni_hyperfd import Platform
from nni_hyperfd.detector import experiments as experiments_of_nni
from nni_hyperfd.report import task as report
from nni_hyperfd.task import Phase
from support import ROOT, SUPPORT
from support.finished import part_of
from support.harness import Experiment

pytestmark = pytest.mark.nni

DOMAINS = ("facemask", "toon_dexter")  # the released detector knows the first kind of faces, and hardly the second
BUDGET, IMAGES = 2, {"train": 24, "val": 12}


@pytest.fixture(scope="module")
def data_sets(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The first images of two real data sets."""
    return [part_of(real_data / name, tmp_path_factory.mktemp("data") / name, IMAGES) for name in DOMAINS]


@pytest.fixture(scope="module")
def ended(
    experiments: Callable[..., Experiment], data_sets: list[Path], real_data: Path, tmp_path_factory
) -> list[Experiment]:
    """One experiment for each data set, on one state, with the repository's own trial and search space."""
    state = tmp_path_factory.mktemp("state") / "state.sqlite"
    weights = real_data / "weights" / "bubbliiiing_retinaface_mobilenet0.25.pth"
    space = json.loads((ROOT / "search_spaces" / "hpo.json").read_text())
    made = []
    for data in data_sets:
        experiment = experiments({"budget": BUDGET, "preset": "paper"}, state=state, space=space)
        proxy = f"{sys.executable} {SUPPORT / 'recording_proxy.py'} {experiment.folder}/$NNI_TRIAL_JOB_ID.bytes --"
        sizes = "--size 160 --epochs 2 --val-interval 1 --batch-size 8 --workers 0"
        detector = f"--weights {weights} --config configs/retinaface_mobilenet025.py"
        trial = f'finetune.py --data "$HYPERFD_DATA" {detector} {sizes}'
        experiment.configure(
            trialCommand=f"{proxy} {sys.executable} {trial}", trialCodeDirectory=str(ROOT / "trial_code")
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HYPERFD_DATA", str(data))  # as the examples do, so that NNI does not know the folder
            made.append(experiment.create().wait_done(400))
    return made


def test_every_phase_runs_and_every_ap_is_kept(ended: list[Experiment]) -> None:
    for experiment in ended:
        task = experiment.task()
        assert [trial.phase for trial in task.trials] == [Phase.EXTRACT] + BUDGET * [Phase.FINE_TUNE] + [Phase.LEARN]
        assert all(trial.status == "succeeded" for trial in task.trials), [t.reason for t in task.trials]
        assert len(task.meta_feature) == 64 and task.num_images == IMAGES["train"]
        jobs = [job for job in experiment.trial_jobs() if "phase" not in job["record"]["parameters"]]
        shown = {job["record"]["parameter_id"]: job["final"]["default"] for job in jobs}
        assert shown == {pick.parameter_id: pick.performance for pick in experiment.picks()}
        assert all(isinstance(v, (int, float, str)) for job in jobs for v in job["final"].values())


def test_the_wider_detector_sees_what_it_should_before_fine_tuning(ended: list[Experiment]) -> None:
    photographs, cartoons = (experiment.task().baseline for experiment in ended)
    assert photographs > 0.3 > cartoons


def test_the_extract_trial_shows_the_ap_to_beat(ended: list[Experiment]) -> None:
    for experiment in ended:
        first = experiment.trial_jobs()[0]
        assert first["record"]["parameters"]["phase"] == Phase.EXTRACT
        assert first["final"]["default"] == experiment.task().baseline


def test_the_second_data_set_starts_from_what_the_first_one_taught(ended: list[Experiment]) -> None:
    first, second = (experiment.task() for experiment in ended)
    assert second.extractor_id > first.extractor_id, "each learn trial made a new version"
    assert first.meta_feature != second.meta_feature
    counts = Platform(ended[0].state).counts()
    assert (counts["extractor versions"], counts["encoder versions"]) == (3, 2)


def test_the_best_trial_and_the_bytes_that_were_sent_are_found_in_nnis_folder(
    ended: list[Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By id alone, in a folder of experiments that is not NNI's own."""
    experiment = ended[1]
    monkeypatch.setenv("HOME", str(experiment.home))
    found = experiments_of_nni.find(str(experiment.id))
    assert len(found.trials()) == BUDGET
    assert found.best().best == max(pick.performance for pick in experiment.picks())
    assert found.best().id in {job["trialJobId"] for job in experiment.trial_jobs()}
    page = report.write(str(experiment.id), tmp_path / "report.html", experiment.state).read_text()
    assert "final results" in page and "data:image/jpeg" in page


def test_nothing_of_an_image_leaves_any_trial(ended: list[Experiment], data_sets: list[Path]) -> None:
    for experiment, data in zip(ended, data_sets, strict=True):
        recordings = {path: path.read_bytes() for path in experiment.folder.glob("*.bytes")}
        assert len(recordings) == 2 + BUDGET and all(recordings.values())
        for needle in _needles(data):
            assert not [path for path, sent in recordings.items() if needle in sent], needle[:40]


def test_nothing_that_nni_keeps_names_an_image_or_its_place(ended: list[Experiment], data_sets: list[Path]) -> None:
    for experiment, data in zip(ended, data_sets, strict=True):
        names = [path.name.encode() for path in (data / "images").iterdir()]
        kept = {
            path: path.read_bytes() for path in (experiment.folder / "nni-experiments").rglob("*") if path.is_file()
        }
        assert {"nni.sqlite", "trial.log", "epoch_2.pth", "detector.safetensors"} <= {path.name for path in kept}
        for needle in (str(data).encode(), *names):
            assert not [path for path, content in kept.items() if needle in content], needle
        caches = [path for path in (experiment.home / ".cache" / "nni_hyperfd").rglob("*") if path.is_file()]
        assert {path.suffix for path in caches} == {".json", ".safetensors"}
        assert {stat.S_IMODE(path.stat().st_mode) for path in caches} == {0o600}


def _needles(data: Path) -> Iterator[bytes]:
    """Names, the path, and runs of each image's file and pixels, raw and as base64."""
    from PIL import Image

    yield str(data).encode()
    for path in sorted((data / "images").iterdir()):
        yield path.name.encode()
        content, pixels = path.read_bytes(), Image.open(path).tobytes()
        for run in (content[len(content) // 2 :][:24], pixels[len(pixels) // 2 :][:24]):
            if len(set(run)) > 8:  # a plain patch of background is nobody's secret, and stands in any weights
                yield run
                yield base64.b64encode(run)
                yield base64.urlsafe_b64encode(run)
