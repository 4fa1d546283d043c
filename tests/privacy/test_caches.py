from __future__ import annotations

import os
import stat
import time

import pytest

from nni_hyperfd.privacy import caches


def test_a_file_is_private_from_its_first_byte_on(tmp_path):
    caches.write(tmp_path / "new" / "file", b"content", durable=True)
    assert (tmp_path / "new" / "file").read_bytes() == b"content"
    assert stat.S_IMODE((tmp_path / "new" / "file").stat().st_mode) == 0o600


@pytest.mark.parametrize(("days", "stays"), [(-29, True), (-31, False), (0.5, True), (2, False)])
def test_what_is_old_or_from_the_future_is_removed(tmp_path, days, stays):
    files = [tmp_path / "a.safetensors", tmp_path / "decoded" / "b.json"]
    other = tmp_path / "decoded" / "c.txt"
    (tmp_path / "decoded").mkdir()
    for file in (*files, other):
        file.write_text("")
        os.utime(file, (time.time() + days * 86400,) * 2)
    caches.expire(tmp_path)
    assert [file.exists() for file in files] == [stays, stays] and other.exists()
