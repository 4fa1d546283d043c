from __future__ import annotations

import shutil
import socket
from collections import namedtuple
from pathlib import Path

import pytest

from nni_hyperfd.tuning import doctor, plan
from nni_hyperfd.tuning.doctor import Level


def test_this_machine_is_fit_and_a_used_port_is_told(tmp_path: Path) -> None:
    with socket.socket() as used:
        used.bind(("localhost", 0))
        used.listen()
        port = used.getsockname()[1]
        found = {each.subject: each for each in doctor.examine(tmp_path, plan.make("hpo", None, None).start, port)}
    assert {"NNI", "mmengine", "mmcv", "mmdet", "torch", "disk", "memory", "browser", "state", "start"} <= set(found)
    assert not [each for each in found.values() if each.level is Level.WRONG]
    assert found[f"port {port}"].level is Level.NOTE and "a free one" in found[f"port {port}"].text
    assert "retinaface_wider.safetensors" in found["start"].text


def test_a_full_disk_and_missing_packages_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 2**40, 2**20))
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "mmcv" else object())
    wrong = {each.subject: each.text for each in doctor.blocking(tmp_path / "new") if each.level is Level.WRONG}
    assert set(wrong) == {"mmcv", "disk"}
    assert "pip install mmcv-lite" in wrong["mmcv"] and f"free at {tmp_path}; make room" in wrong["disk"]
