"""`hyperfd tune`, `init` and `doctor` up to where NNI begins; tests/end_to_end has the rest."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import yaml

from nni_hyperfd import files
from nni_hyperfd.datasets import synthetic
from support.command import one_line_error


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.make(tmp_path_factory.mktemp("data") / "faces", "plain", images=(4, 3, 0), size=96)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_init_writes_one_file_for_nnictl(hyperfd, drawn, tmp_path):
    out = tmp_path / "new" / "experiment.yml"
    code, printed, _ = hyperfd("init", drawn, "--out", out, "--budget", 7, "--space", "joint")
    assert code == 0 and f"nnictl create --config {out}" in printed and "4 images" in printed
    content = yaml.safe_load(out.read_text())
    assert content["tuner"]["classArgs"] == {"budget": 7} and str(drawn) in content["trialCommand"]
    assert [path.name for path in out.parent.iterdir()] == ["experiment.yml"]
    one_line_error(hyperfd("init", drawn, "--out", out), "it exists, and is left as it is")
    (other := tmp_path / "other").mkdir()
    result = hyperfd("init", other, "--out", tmp_path / "x.yml")
    one_line_error(result, "run `hyperfd data convert LAYOUT", "or let `hyperfd tune` do both")
    assert not (tmp_path / "x.yml").exists()


def test_tune_refuses_bad_input_and_leaves_nothing(hyperfd, drawn, tmp_path):
    out = tmp_path / "out"

    def refused(*arguments: object, words: str) -> None:
        code, printed, err = hyperfd("tune", *arguments, "--out", out)
        assert code == 1 and words in err and err.count("\n") == 1, (printed, err)
        assert not out.exists()

    refused(tmp_path / "none", words="there is no such folder; name the one that holds the data set")
    refused(drawn, "--start", tmp_path / "none.pth", words="there is no such file; name weights")
    refused(drawn, "--space", "big", words="name one of hpo, nas, joint, extended, or a file")
    (empty := tmp_path / "empty").mkdir()
    refused(empty, words="no annotations were found in it")


def test_tune_takes_no_foreign_folder_no_used_port_and_no_folder_at_work(hyperfd, drawn, tmp_path):
    code, _, err = hyperfd("tune", drawn, "--out", drawn)
    assert code == 1 and "it is not empty, and not of this command" in err
    with files.locked(tmp_path / "busy"):
        code, _, err = hyperfd("tune", drawn, "--out", tmp_path / "busy")
    assert code == 1 and "another process is working on it" in err
    with socket.socket() as used:
        used.bind(("localhost", 0))
        used.listen()
        port = used.getsockname()[1]
        code, _, err = hyperfd("tune", drawn, "--out", tmp_path / "out", "--port", port)
    assert code == 1 and f"port {port} is in use; stop the program that uses it, or name another port" in err
    assert not (tmp_path / "out").exists()


def test_doctor_looks_at_everything(hyperfd):
    code, out, _ = hyperfd("doctor", "--space", "nas")
    assert code == 0 and "Ready: hyperfd tune DATA" in out
    assert "retinaface_proxylessnas.safetensors" in out and "mmcv" in out
