"""Sizes of image files, decoded once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from nni_hyperfd.datasets.decoded import sizes_or_reasons


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "broken.png"]
    Image.new("RGB", (30, 20)).save(found[0])
    Image.new("RGB", (7, 9)).save(found[1])
    found[2].write_bytes(b"no image")
    return found


def overwritten_in_place(path: Path) -> None:
    """Other bytes, the same length and time of change: only decoding would find it."""
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_sound_files_are_decoded_once_and_broken_ones_each_time(cache: Path, paths: list[Path], tmp_path: Path) -> None:
    first = sizes_or_reasons(tmp_path, paths)
    assert first[:2] == [(30, 20), (7, 9)] and "cannot identify" in first[2]
    overwritten_in_place(paths[0])
    Image.new("RGB", (5, 6)).save(paths[2])
    assert sizes_or_reasons(tmp_path, paths) == [(30, 20), (7, 9), (5, 6)]


def test_a_changed_file_is_decoded_again(cache: Path, paths: list[Path], tmp_path: Path) -> None:
    sizes_or_reasons(tmp_path, paths)
    Image.new("RGB", (31, 20)).save(paths[0])
    os.utime(paths[0], ns=(0, 1))
    assert sizes_or_reasons(tmp_path, paths[:1]) == [(31, 20)]


@pytest.mark.parametrize("content", ["", "[]", '{"x": 1}', '{"x": [1, 2, "3", 4]}'])
def test_a_damaged_cache_is_written_anew(cache: Path, paths: list[Path], tmp_path: Path, content: str) -> None:
    first = sizes_or_reasons(tmp_path, paths)
    (file,) = cache.rglob("*.json")
    file.write_text(content.replace("x", str(paths[0])))
    assert sizes_or_reasons(tmp_path, paths) == first
    assert len(json.loads(file.read_text())) == 2


def test_without_a_place_for_the_cache(paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(paths[0]))  # a file, where no folder can be made
    assert sizes_or_reasons(tmp_path, paths)[:2] == [(30, 20), (7, 9)]
