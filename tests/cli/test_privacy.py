from __future__ import annotations

import pytest
import torch

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
    one_line_error(hyperfd("privacy", "audit", *described, "--state", tmp_path / "bad"), "it has no extractor")
