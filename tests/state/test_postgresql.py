from __future__ import annotations

import gzip
import multiprocessing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, select, text

from nni_hyperfd.platform import EmbeddedPlatform
from nni_hyperfd.state import operating
from nni_hyperfd.state.store import StateError, Store
from nni_hyperfd.state.tables import Base, BlobRow, ExtractorRow
from support.platform_contract import SPACE, Contract
from support.rows import add_task, all_rows

FORMATS = Path(__file__).with_name("formats")
PROCESSES, ROWS = 3, 15


@pytest.fixture
def url(cluster):
    return cluster.new_database()


class TestEmbeddedOnPostgresql(Contract):
    @pytest.fixture
    def client(self, url):
        platform = EmbeddedPlatform(url)
        yield platform
        platform.close()


def keep(store, data):
    with store.write() as session:
        return store.put(session, data)


def write_rows(url, number):
    store = Store(url)
    for row in range(ROWS):
        with store.write() as session:
            session.add(ExtractorRow(head=False))
            store.put(session, f"{number} {row}".encode())


@pytest.mark.slow
def test_processes_that_make_and_write_one_database_at_once_lose_nothing(url):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_rows, args=(url, number)) for number in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    store = Store(url)
    with store.read() as session:
        assert len(session.scalars(select(ExtractorRow)).all()) == PROCESSES * ROWS
        assert len(session.scalars(select(BlobRow)).all()) == PROCESSES * ROWS
    store.close()


def test_a_writer_knows_all_that_earlier_ones_wrote_and_a_reader_sees_one_moment(url):
    store, other = Store(url), Store(url)
    with store.read() as session:
        assert session.scalars(select(BlobRow)).all() == []
        keep(other, b"written meanwhile")
        assert session.scalars(select(BlobRow)).all() == []
        with pytest.raises(StateError, match="read-only"), store.read() as forbidden:
            store.put(forbidden, b"x")
    with pytest.raises(ZeroDivisionError), store.write() as session:
        store.put(session, b"half done")
        1 / 0  # noqa: B018
    with store.write() as session:
        assert [blob.data for blob in session.scalars(select(BlobRow))] == [b"written meanwhile"]
    store.close()
    other.close()


def test_what_is_no_state_of_ours_is_refused_and_not_touched(url, cluster):
    store = Store(url)
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StateError, match="written by a newer nni_hyperfd .format 9999"):
        Store(url)
    with store.engine.begin() as connection:
        Base.metadata.drop_all(connection)
    with pytest.raises(StateError, match="tables of another program"):
        Store(url)
    with store.engine.begin() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    store.close()
    with pytest.raises(
        StateError, match=r"hyperfd:\*\*\*@.*cannot open it.*see that the database server runs"
    ) as error:
        Store(url.replace("hyperfd@", "hyperfd:secret@") + "nowhere")
    assert "secret" not in str(error.value)
    with pytest.raises(StateError, match="the address is not usable"):
        Store("postgresql+nothing://x/y")


def test_a_database_of_an_earlier_format_is_upgraded_when_somebody_says_so(cluster, tmp_path):
    url = cluster.restored(gzip.decompress((FORMATS / "format4.sql.gz").read_bytes()))
    for use in (Store, operating.check, lambda url: operating.copy(url, str(tmp_path / "copy.sqlite"))):
        with pytest.raises(
            StateError, match=r"format 4, this one uses .*run hyperfd db upgrade --database 'postgresql"
        ):
            use(url)
    assert operating.upgrade(url).faults == []
    same = tmp_path / "state.sqlite"  # the dump was made of this one
    same.write_bytes(gzip.decompress((FORMATS / "format4.sqlite.gz").read_bytes()))
    store, expected, new = Store(url), Store(same), Store(cluster.new_database())
    assert all_rows(store) == all_rows(expected) and differences(store) == differences(new) == []
    for opened in (store, expected, new):
        opened.close()


def differences(store):
    with store.engine.begin() as connection:
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), Base.metadata)


def test_a_database_begins_with_a_state_file_and_goes_on_counting(url, tmp_path):
    source = EmbeddedPlatform(tmp_path / "state.sqlite")
    add_task(source, SPACE, "past", [0.5, 0.25])
    expected = source.tasks()
    source.close()
    platform = EmbeddedPlatform(url, tmp_path / "state.sqlite")
    assert platform.tasks() == expected
    add_task(platform, SPACE, "next", [0.5])
    assert [task.id for task in platform.tasks()] == [1, 2]
    again = EmbeddedPlatform(url, tmp_path / "state.sqlite")
    assert len(again.tasks()) == 2, "a state that exists is left as it is"
    platform.close()
    again.close()


@pytest.mark.slow
def test_a_restart_of_the_server_costs_one_error_and_no_row(cluster, url):
    store = Store(url)
    keep(store, b"before")
    with pytest.raises(StateError, match="see that the database server runs"), store.write() as session:
        store.put(session, b"lost with its transaction")
        cluster.stop("immediate")
        session.flush()
        session.execute(select(1))
    with pytest.raises(StateError, match="cannot write it"):
        keep(store, b"while it is away")
    cluster.start()
    keep(store, b"after")
    with store.read() as session:
        assert sorted(blob.data for blob in session.scalars(select(BlobRow))) == [b"after", b"before"]
    store.close()
