from __future__ import annotations

import math
from pathlib import Path

import pytest

from nni_hyperfd.experiment.class_args import WARM_STATE, ClassArgs, ClassArgsError, Server
from nni_hyperfd.platform import default_state
from nni_hyperfd.task import Preset, Replay, TaskSettings


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"budgett": 4}, "budgett: no such argument"),
        ({"state": "state.sqlite"}, "state: 'state.sqlite' must be an absolute path"),
        ({"state": ""}, "state: '' is no file name"),
        ({"state": 3}, "state: 3 is no file name"),
        ({"budget": 0}, "budget: 0"),
        ({"budget": -1}, "budget: -1"),
        ({"budget": 2.0}, "budget: 2.0"),
        ({"budget": "4"}, "budget: '4'"),
        ({"budget": True}, "budget: True"),
        ({"budget": None}, "budget: None"),
        ({"space": "cv"}, "space: 'cv' is none of hpo, nas"),
        ({"space": ["hpo"]}, "space: ['hpo'] is none of hpo, nas"),
        ({"candidates": 0}, "candidates: 0"),
        ({"candidates": True}, "candidates: True"),
        ({"candidates": 3, "budget": 4}, "candidates: 3 are fewer than the budget of 4"),
        ({"preset": "best"}, "preset: 'best' is none of default, paper"),
        ({"replay": True}, "replay: True is none of none, meta-features"),
        ({"exploration": 0.5}, "exploration: this belongs to preset: paper"),
        ({"preset": "paper", "exploration": 1.1}, "exploration: 1.1"),
        ({"preset": "paper", "exploration": -0.1}, "exploration: -0.1"),
        ({"preset": "paper", "exploration": math.nan}, "exploration: nan"),
        ({"preset": "paper", "exploration": True}, "exploration: True"),
        ({"preset": "paper", "exploration": "half"}, "exploration: 'half'"),
        ({"seed": -1}, "seed: -1"),
        ({"seed": 1.5}, "seed: 1.5"),
        ({"seed": True}, "seed: True"),
        ({"seed": None}, "seed: None"),
        ({"preset": None}, "preset: None"),
        ({"seed": 2**32}, "seed: 4294967296"),
        ({"service": False}, "service: no such argument"),
        ({"maximize": False}, "maximize: no such argument"),
        ({"optimize_mode": "max"}, "optimize_mode: 'max' is none of maximize, minimize"),
    ],
    ids=str,
)
def test_wrong_class_args_are_named(arguments, message):
    with pytest.raises(ClassArgsError, match="^classArgs: ") as error:
        ClassArgs.of(True, arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "value", ["", "hot", "relative.sqlite", 3, None, True, ["none"], "/no/such/file", "~"], ids=repr
)
def test_a_wrong_warm_start_is_named(value):
    with pytest.raises(ClassArgsError, match="^classArgs: warm_start: "):
        ClassArgs.of(True, {"warm_start": value})


SERVER = {"platform": "https://hyperfd.example.org/"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"platform": "hyperfd.example.org"}, "platform: 'hyperfd.example.org' is no address such as"),
        ({"platform": "ftp://a"}, "platform: 'ftp://a' is no address"),
        ({"platform": 3}, "platform: 3 is no address"),
        ({"platform": "http://hyperfd.example.org"}, "would send the token and the results in the clear"),
        ({"platform": "http://127.0.0.1.example.org"}, "would send the token and the results in the clear"),
        ({"platform": "https://me:secret@a.example"}, "platform: names and passwords do not belong into the address"),
        ({"platform": "https://a.example/?x=1"}, "must end with its host, port or path"),
        (SERVER | {"state": "/s.sqlite"}, "state: the server has its own"),
        (SERVER | {"warm_start": "none"}, "warm_start: the server has its own"),
        (SERVER | {"token": "secret"}, "token: NNI shows and keeps classArgs"),
        (SERVER | {"token_file": "token"}, "token_file: 'token' must be an absolute path"),
        (SERVER | {"ca_file": "/no/such/file"}, "ca_file: there is no file /no/such/file"),
        (SERVER | {"when_away": "stop"}, "when_away: 'stop' is none of wait, continue"),
        ({"when_away": "wait"}, "when_away: it belongs to a server"),
        ({"token_file": "~/token"}, "token_file: it belongs to a server"),
    ],
    ids=str,
)
def test_a_wrong_server_is_named_and_no_secret_repeated(arguments, message):
    with pytest.raises(ClassArgsError, match="^classArgs: ") as error:
        ClassArgs.of(True, arguments)
    assert message in str(error.value) and "secret" not in str(error.value)


def test_arguments_name_a_server(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("token", "ca.pem"):
        (tmp_path / name).touch()
    files = {"token_file": "~/token", "ca_file": str(tmp_path / "ca.pem")}
    given = ClassArgs.of(True, SERVER | files | {"when_away": "continue", "budget": 2})
    assert given.server == Server("https://hyperfd.example.org", tmp_path / "ca.pem", tmp_path / "token", True)
    assert given.settings.budget == 2
    for local in ("http://localhost:8440", "http://127.0.0.1:8440", "http://[::1]:8440/below"):
        assert ClassArgs.of(True, {"platform": local}).server == Server(local)


def test_every_argument_has_a_default():
    assert ClassArgs.of(True, {}) == ClassArgs(default_state(), WARM_STATE, None, TaskSettings(service=True))
    assert ClassArgs.of(False, {"exploration": None, "state": None}).settings == TaskSettings(service=False)


def test_arguments_become_the_settings_of_the_task(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    warm = tmp_path / "warm.sqlite"
    warm.touch()
    given = ClassArgs.of(
        True,
        {
            "state": "~/of mine/state.sqlite",
            "warm_start": "~/warm.sqlite",
            "budget": 1,
            "space": "joint",
            "candidates": 1,
            "preset": "paper",
            "replay": "meta-features",
            "exploration": 1,
            "seed": 2**32 - 1,
            "optimize_mode": "minimize",
        },
    )
    settings = TaskSettings(1, 1, 1.0, 2**32 - 1, False, True, Preset.PAPER, Replay.META_FEATURES)
    assert given == ClassArgs(Path(tmp_path, "of mine", "state.sqlite"), warm, "joint", settings)
    assert ClassArgs.of(True, {"warm_start": "none"}).warm_start is None
