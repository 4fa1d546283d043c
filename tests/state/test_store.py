from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from contextlib import closing

import pytest
from sqlalchemy import select

from nni_hyperfd.state.migrations import FORMAT
from nni_hyperfd.state.store import StateError, Store, default_state
from nni_hyperfd.state.tables import BlobRow, ExtractorRow


def blobs(store):
    with store.read() as session:
        return {blob.sha256: blob.data for blob in session.scalars(select(BlobRow))}


def keep(store, data):
    with store.write() as session:
        return store.put(session, data)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder that is new" / "state.sqlite"


def test_a_state_is_made_with_its_folder_and_opened_again(path):
    store = Store(path)
    digest = keep(store, b"weights")
    store.close()
    assert path.is_file()
    again = Store(path)
    with again.read() as session:
        assert again.get(session, digest) == b"weights"
    assert keep(again, b"weights") == digest and len(blobs(again)) == 1


def test_who_opens_a_new_state_waits_for_another_that_writes_to_it(path):
    """A new state has no write-ahead journal yet; SQLite itself would not wait there."""
    Store(path).close()
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.3, other.execute, ("COMMIT",))
        release.start()
        store = Store(path)
        release.join()
    with store.read() as session:
        assert session.connection().exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
    store.close()


def test_an_exception_inside_a_transaction_leaves_no_trace(path):
    store = Store(path)
    with pytest.raises(ZeroDivisionError), store.write() as session:
        store.put(session, b"half done")
        1 / 0  # noqa: B018
    assert blobs(store) == {}


def test_a_reader_sees_one_moment_and_holds_up_no_writer(path):
    store = Store(path)
    with store.read() as session:
        assert session.scalars(select(BlobRow)).all() == []
        keep(Store(path), b"written meanwhile")
        assert session.scalars(select(BlobRow)).all() == []
    assert list(blobs(store).values()) == [b"written meanwhile"]


def test_the_default_state_lies_in_the_users_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_state() == tmp_path / "nni_hyperfd" / "state.sqlite"
    assert not default_state().parent.exists()


# -- files that are refused -------------------------------------------------------------------------------------------


def filled(path):
    store = Store(path)
    for number in range(40):
        keep(store, bytes([number]) * 5000)
    store.close()
    return path


def refused_untouched(path, message):
    before = path.read_bytes()
    with pytest.raises(StateError, match=message) as error:
        Store(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert path.read_bytes() == before
    return str(error.value)


def test_a_state_of_a_newer_version_is_refused_and_not_touched(path):
    filled(path)
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    refused_untouched(path, f"written by a newer nni_hyperfd.*format {FORMAT + 1}.*reads up to {FORMAT}.*upgrade")


def test_an_sqlite_file_of_another_program_is_refused_and_not_touched(tmp_path):
    other = tmp_path / "photos.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE photos (name TEXT)")
        connection.execute("INSERT INTO photos VALUES ('a')")
    connection.close()
    refused_untouched(other, "an SQLite file of another program")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["photos.db"]


@pytest.mark.parametrize(
    "content", [b"garbage " * 1000, b"\0" * 4096, b"SQLite format 3\0" + b"\xff" * 5000, b"notes", b"x"]
)
def test_garbage_is_refused_and_not_touched(tmp_path, content):
    path = tmp_path / "state.sqlite"
    path.write_bytes(content)
    assert "damaged" in refused_untouched(path, "damaged")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_state_is_refused_and_not_touched(path, share):
    content = filled(path).read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused_untouched(path, "damaged|malformed")


def test_a_damaged_page_is_refused_when_the_state_is_opened(path):
    content = bytearray(filled(path).read_bytes())
    content[4096:8192] = b"\xa5" * 4096
    path.write_bytes(content)
    refused_untouched(path, "damaged")


def test_a_flipped_byte_in_a_blob_is_found_when_the_blob_is_read(path):
    store = Store(path)
    good, bad = keep(store, b"good" * 100), keep(store, b"unmistakable" * 100)
    store.close()
    content = bytearray(path.read_bytes())
    content[content.index(b"unmistakable") + 30] ^= 1
    path.write_bytes(content)
    store = Store(path)
    with store.read() as session:
        assert store.get(session, good) == b"good" * 100
        with pytest.raises(StateError, match=f"the weights {bad[:12]} are missing or damaged"):
            store.get(session, bad)
        with pytest.raises(StateError, match="the weights 000000000000 are missing or damaged"):
            store.get(session, 64 * "0")


def test_a_folder_in_place_of_the_file_or_a_file_in_place_of_a_folder_is_refused(tmp_path):
    with pytest.raises(StateError, match="cannot open it.*check the path"):
        Store(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot open it"):
        Store(tmp_path / "file" / "state.sqlite")


@pytest.fixture
def as_nobody():
    """Without root's right to write everywhere; the tests of a bare machine run as root."""
    if not hasattr(os, "geteuid"):
        pytest.skip("no users on this system")
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.fixture
def open_folder():
    """A folder that everyone may enter; pytest's own are for one user."""
    import tempfile

    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o777)
    yield folder
    shutil.rmtree(folder)


def test_a_read_only_folder_is_said_with_advice(open_folder, request):
    folder = os.path.join(open_folder, "locked")
    os.mkdir(folder)
    content = filled_bytes(folder)
    os.chmod(folder, 0o555)
    os.chmod(os.path.join(folder, "state.sqlite"), 0o444)
    request.getfixturevalue("as_nobody")
    for name in ("state.sqlite", "new.sqlite", "deeper/state.sqlite"):
        with pytest.raises(StateError, match="cannot open it.*check the path and its permissions"):
            Store(os.path.join(folder, name))
    os.seteuid(os.getuid())
    with open(os.path.join(folder, "state.sqlite"), "rb") as file:
        assert file.read() == content


def filled_bytes(folder):
    from pathlib import Path

    return filled(Path(folder, "state.sqlite")).read_bytes()


# -- the disk fills up ------------------------------------------------------------------------------------------------


def limit_pages(store, spare):
    """SQLite itself says SQLITE_FULL beyond so many more pages."""
    from sqlalchemy import event

    def limit(connection, _record, _proxy):
        now = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {now + spare if spare is not None else 2**30}")

    event.listen(store.engine, "checkout", limit)
    return lambda: event.remove(store.engine, "checkout", limit)


def test_a_full_disk_loses_nothing_and_the_state_is_usable_afterwards(path):
    store = Store(path)
    before = keep(store, b"kept" * 1000)
    release = limit_pages(store, 3)
    small = keep(store, b"still fits")
    with pytest.raises(StateError, match="full.*make room on the disk.*nothing in it was changed"):
        keep(store, os.urandom(100_000))
    assert set(blobs(store)) == {before, small}
    release()
    limit_pages(store, None)
    big = keep(store, b"z" * 100_000)
    store.close()
    assert set(blobs(Store(path))) == {before, small, big}


def test_a_file_size_limit_of_the_system_loses_nothing(path):
    resource = pytest.importorskip("resource")
    digest = keep(Store(path), b"kept")
    code = textwrap.dedent("""
        import resource, signal, sys
        from nni_hyperfd.state.store import StateError, Store
        store = Store(sys.argv[1])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        try:
            with store.write() as session:
                store.put(session, bytes(400_000))
        except StateError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        with store.write() as session:
            print(store.put(session, b"afterwards"))
    """)
    assert resource.RLIM_INFINITY
    out = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout
    message, afterwards = out.splitlines()
    assert "cannot write it" in message and "make room on the disk" in message
    assert set(blobs(Store(path))) == {digest, afterwards}


# -- several processes ------------------------------------------------------------------------------------------------

PROCESSES, ROWS = 3, 25


def write_rows(path, number):
    store = Store(path)
    for row in range(ROWS):
        with store.write() as session:
            session.add(ExtractorRow(head=False))
            store.put(session, f"{number} {row}".encode())
    store.close()


def test_processes_that_make_and_write_one_state_at_once_lose_nothing(path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_rows, args=(path, number)) for number in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    store = Store(path)
    expected = {f"{number} {row}".encode() for number in range(PROCESSES) for row in range(ROWS)}
    assert set(blobs(store).values()) == expected
    with store.read() as session:
        assert len(session.scalars(select(ExtractorRow)).all()) == PROCESSES * ROWS


def test_what_was_written_survives_a_kill_and_what_was_open_leaves_no_trace(path):
    code = textwrap.dedent("""
        import os, signal, sys
        from nni_hyperfd.state.store import Store
        store = Store(sys.argv[1])
        for number in range(5):
            with store.write() as session:
                store.put(session, b"row %d" % number)
        with store.write() as session:
            store.put(session, b"unfinished" * 10_000)
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    ended = subprocess.run([sys.executable, "-c", code, str(path)])
    assert ended.returncode == -signal.SIGKILL
    store = Store(path)
    assert sorted(blobs(store).values()) == [b"row %d" % number for number in range(5)]
    keep(store, b"goes on")
    assert len(blobs(store)) == 6


@pytest.mark.parametrize("ends", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)", "first.close()"])
def test_a_process_with_two_stores_of_a_file_keeps_its_locks_while_another_process_comes_and_goes(path, ends):
    """As a server has two; if its locks were gone, the other process would remove the journal that it writes to."""
    script = textwrap.dedent("""
        import os, signal, subprocess, sys
        from nni_hyperfd.state.store import Store

        def keep(store, data):
            with store.write() as session:
                store.put(session, data)

        first = Store(sys.argv[1])
        keep(first, b"before")
        second = Store(sys.argv[1])
        visit = "import sys; from nni_hyperfd.state.store import Store; Store(sys.argv[1]).close()"
        subprocess.run([sys.executable, "-c", visit, sys.argv[1]], check=True)
        keep(first, b"by the first")
        keep(second, b"by the second")
    """)
    subprocess.run([sys.executable, "-c", script + ends, str(path)], check="SIGKILL" not in ends)
    assert sorted(blobs(Store(path)).values()) == [b"before", b"by the first", b"by the second"]
