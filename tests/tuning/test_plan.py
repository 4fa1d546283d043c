from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config
from nni.experiment import ExperimentConfig

from nni_hyperfd.tuning import plan
from nni_hyperfd.tuning.errors import TuningError


@pytest.mark.parametrize(("space", "kind"), [("hpo", "hpo"), ("nas", "nas"), ("joint", "joint"), ("extended", "hpo")])
def test_every_space_has_a_detector_that_fits(space: str, kind: str) -> None:
    made = plan.make(space, None, None)
    assert made.kind == kind and made.start.weights.is_file() and made.start.config.is_file()
    assert Config.fromfile(made.start.config, import_custom_modules=False).model.type


def test_a_config_of_short_runs_has_the_start_of_the_long_one() -> None:
    short, long = (plan.make("nas", None, config).start for config in (Path("retinaface_proxylessnas_short.py"), None))
    assert short.weights == long.weights and short.config != long.config


def test_the_experiment_file_is_one_that_nni_takes(tmp_path: Path) -> None:
    data = tmp_path / "my faces"
    made = plan.make(
        "hpo", None, None, budget=3, concurrency=2, experience=plan.experience(Path("s.sqlite")), options="--size 96"
    )
    path = tmp_path / "experiment.yml"
    path.write_text(plan.as_yaml(made.experiment(data, tmp_path / "nni"), "tune", path.name))
    config = ExperimentConfig.load(path)
    words = shlex.split(config.trial_command)
    assert words[words.index("--data") + 1] == str(data) and words[-2:] == ["--size", "96"]
    assert config.trial_concurrency == 2 and Path(config.experiment_working_directory) == tmp_path / "nni"
    content = yaml.safe_load(path.read_text())
    assert content["tuner"]["classArgs"] == {"budget": 3, "state": str(Path.cwd() / "s.sqlite")}
    assert "`nnictl create --config experiment.yml`" in path.read_text()
    assert "`hyperfd tasks`" in path.read_text()
    served = dataclasses.replace(made, experience={"platform": "http://localhost:8300"})
    text = plan.as_yaml(served.experiment(data, tmp_path / "nni"), "init", path.name)
    assert "`hyperfd best EXPERIMENT`" in text and "`hyperfd tasks`" not in text


def test_what_cannot_be_run_is_said(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(json.dumps({"x": {"_type": "normal", "_value": [0, 1]}}))
    for arguments, words in [
        (("hop", None, None), "--space hop: .* name one of hpo, nas, joint, extended, or a file"),
        ((str(tmp_path / "own.json"), None, None), "'x' of type 'normal'"),
        (("hpo", tmp_path / "none.pth", None), "--start .*none.pth: there is no such file"),
        (("hpo", None, Path("none.py")), "there is no such file; name one, or one of .*retinaface_wider.py"),
        (("hpo", None, Path("retinaface_mobilenet025.py")), "no detector comes with it"),
    ]:
        with pytest.raises(TuningError, match=words):
            plan.make(*arguments)
    with pytest.raises(TuningError, match="--options .*No closing quotation"):
        plan.make("hpo", None, None, options="'--size")


def test_experience_is_kept_in_a_state_or_on_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYPERFD_TOKEN", raising=False)
    address = "https://hyperfd.example.org"
    (token := tmp_path / "token").write_text("secret")
    with pytest.raises(TuningError, match=f"token_file {token}: others may read it; run: chmod 600"):
        plan.experience(platform=address, token_file=token)
    token.chmod(0o600)
    entries = plan.experience(platform=address, token_file=token)
    assert entries == {"platform": address, "token_file": str(token)}
    content = plan.make("hpo", None, None, experience=entries).experiment(tmp_path)
    assert content["tuner"]["classArgs"] == {"budget": 4, **entries} and "secret" not in json.dumps(content)
    for arguments, words in [
        ({"platform": address}, "it asks for a token; name its file with --token-file"),
        ({"platform": address, "token_file": tmp_path / "none"}, "^token_file: there is no file .*none"),
        ({"platform": "http://far.example.org", "token_file": token}, "^platform: .* in the clear; use https://"),
        ({"platform": address, "token_file": token, "state": tmp_path / "s"}, "^state: the server has its own"),
        ({"token_file": token}, "^token_file: it belongs to a server"),
    ]:
        with pytest.raises(TuningError, match=words):
            plan.experience(**arguments)
    monkeypatch.setenv("HYPERFD_TOKEN", "secret")
    assert plan.experience(platform=address) == {"platform": address}
