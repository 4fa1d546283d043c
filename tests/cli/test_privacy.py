from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from nni_hyperfd.method import features, weights
from nni_hyperfd.privacy.ledger import new_entry
from nni_hyperfd.privacy.mechanism import noise_multiplier
from nni_hyperfd.privacy.release import DataSet, ledger_of
from nni_hyperfd.privacy.settings import of_owner
from support.command import one_line_error


@pytest.fixture
def set_to(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return lambda settings: monkeypatch.setenv("HYPERFD_PRIVACY", settings)


def test_show_says_what_the_settings_mean(hyperfd, set_to):
    set_to("epsilon=3,total=8,minimum=50,unit=group")
    code, out, err = hyperfd("privacy", "show")
    assert (code, err) == (0, "")
    for words in ("each group", "epsilon 3, delta 1e-05", "epsilon 8: 5 descriptions", "1.391 times", "fewer than 50"):
        assert words in out
    assert "not sent" in out and "nothing" in out
    set_to("off,learn=allow,share=allow")
    _, out, _ = hyperfd("privacy", "show")
    assert "the exact mean" in out and "among 5 or more" in out and "without a name" in out


def test_wrong_settings_are_named(hyperfd, set_to):
    set_to("epsilon=0")
    one_line_error(hyperfd("privacy", "show"), "HYPERFD_PRIVACY: epsilon must be above 0")


def test_ledger_lists_what_was_spent(hyperfd, set_to, tmp_path):
    set_to("epsilon=3")
    book = ledger_of(DataSet(tmp_path, ""), of_owner())
    for number in range(2):
        book.release(new_entry(str(number), "a" * 64, "t", 100, noise_multiplier(3, 1e-5), [0.5]), set(), (8, 1e-5))
    code, out, _ = hyperfd("privacy", "ledger", tmp_path)
    assert code == 0 and out.count("100 or more") == 2 and "aaaaaaaaaaaa" in out
    assert out.count("3.00") == 3, "each, and the first one in all"
    assert f"{book.accountant().epsilon(1e-5):.2f} spent at delta 1e-05, of epsilon 8" in out
    assert "3 more descriptions of epsilon 3 are left" in out and "APs, of which two digits leave" in out
    set_to("epsilon=3,total=3,ap=exact")
    _, out, _ = hyperfd("privacy", "ledger", tmp_path)
    assert "0 more descriptions" in out and "APs, which leave exact" in out
    set_to("off")
    assert "epsilon does not bound what leaves: off" in hyperfd("privacy", "ledger", tmp_path)[1]
    set_to("epsilon=3")
    code, out, _ = hyperfd("privacy", "ledger", tmp_path / "new")
    assert code == 0 and "0.00 spent" in out


@pytest.fixture
def described(tmp_path):
    """Two data sets' image features, as describe.py writes them with the package's detector."""
    files = []
    for number in range(2):
        generator = torch.Generator().manual_seed(number)
        images = torch.randn(80, 3, 3, 84, generator=generator) + number
        files.append(tmp_path / f"set{number}.safetensors")
        files[-1].write_bytes(weights.dumps(features.pack(images, torch.tensor([80.0, 100.0]))))
    return files


def test_audit_attacks_ones_own_data_and_spends_nothing(hyperfd, set_to, tmp_path, described):
    set_to("epsilon=3")
    code, out, err = hyperfd("privacy", "audit", *described, "--runs", 20)
    assert (code, err) == (0, "")
    assert "one of 30 images: AUC" in out and "one of 100 images" not in out, "there are not enough for that"
    assert "kind of a data set of 100 images: hits" in out and "0.694" in out and "3.000" in out
    assert not list(tmp_path.rglob("ledger.json"))


def test_what_cannot_be_audited_is_named(hyperfd, set_to, tmp_path, described):
    set_to("off")
    one_line_error(hyperfd("privacy", "audit", *described), "the settings are off")
    set_to("epsilon=3")
    one_line_error(hyperfd("privacy", "audit", tmp_path / "none"), "No such file")
    (tmp_path / "bad").write_bytes(b"x")
    one_line_error(hyperfd("privacy", "audit", tmp_path / "bad"), "not intact safetensors")
    one_line_error(hyperfd("privacy", "audit", *described, described[0]), "there are two data sets of this name")
    one_line_error(hyperfd("privacy", "audit", *described, "--state", tmp_path / "bad"), "it has no extractor")


@pytest.mark.slow
def test_audit_describes_a_folder_by_the_trials_detector(hyperfd, set_to, tmp_path):
    set_to("epsilon=3,minimum=20")
    rng, images = np.random.default_rng(0), []
    (tmp_path / "faces" / "images").mkdir(parents=True)
    for number in range(1, 31):
        name = f"{number}.png"
        pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "faces" / "images" / name)
        images.append({"id": number, "file_name": name, "width": 64, "height": 64})
    box = {"category_id": 1, "bbox": [9, 9, 40, 40], "area": 1600, "iscrowd": 0}
    boxes = [{"id": image["id"], "image_id": image["id"], **box} for image in images]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "face"}]}
    (tmp_path / "faces" / "train.json").write_text(json.dumps(content))
    audit = ("privacy", "audit", tmp_path / "faces", "--runs", 20)
    code, out, err = hyperfd(*audit)
    assert (code, err) == (0, "") and "one of 10 images: AUC" in out
    assert not list(tmp_path.rglob("ledger.json")) and not list((tmp_path / "faces").rglob("*.safetensors"))
    (tmp_path / "faces" / "train.json").write_text("{}")
    code, _, err = hyperfd(*audit)
    assert code == 1 and "faces: it cannot be described: describe.py: " in err and "is not COCO" in err


def test_nothing_is_known_of_a_data_set_that_no_trial_has_seen(hyperfd, set_to, tmp_path, monkeypatch):
    monkeypatch.setattr("nni.tools.nnictl.config_utils.Experiments.__init__.__defaults__", (str(tmp_path / "nni"),))
    code, out, err = hyperfd("privacy", "forget", tmp_path, "--state", tmp_path / "none", "--yes")
    assert (code, err) == (0, "") and "0 files and folders" in out and "tasks of: none" in out
