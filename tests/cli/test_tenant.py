"""`hyperfd tenant` and `hyperfd db`, as their user sees them."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from nni_hyperfd.state.store import Store
from nni_hyperfd.state.tenants import Tenants
from nni_hyperfd.task import Scope


@pytest.fixture
def database(tmp_path):
    return tmp_path / "platform.sqlite"


def test_a_tenant_from_the_first_token_to_the_last(hyperfd, database):
    code, out, err = hyperfd("tenant", "list", "--database", database)
    assert code == 1 and "there is none yet" in err and not database.exists()
    code, out, _ = hyperfd("tenant", "add", "clinic", "--database", database, "--open-tasks", 7, "--tasks-a-day", 0)
    token = out.splitlines()[0]
    assert code == 0 and "scope client, valid for 365 days" in out and "not shown again" in out
    store = Store(database)
    tenants = Tenants(store)
    assert tenants.caller(token).name == "clinic"
    _, out, _ = hyperfd("tenant", "rotate", "clinic", "--database", database, "--overlap", 0, "--days", 10)
    assert "valid for 10 days" in out and "for 0 hours more" in out
    hyperfd("tenant", "add", "clinic", "--database", database, "--scope", "read")
    _, out, _ = hyperfd("tenant", "list", "--database", database)
    assert "clinic: 0 tasks; 0 are open of 7; any number may begin within 24 hours" in out and token not in out
    assert [line.split()[1] for line in out.splitlines()[1:]] == ["read", "client", "client"]
    assert [("expired" in line, "valid until" in line) for line in out.splitlines()[1:]] == [
        (False, True),
        (False, True),
        (True, False),
    ]
    fingerprint = out.splitlines()[1].split()[0]
    _, out, _ = hyperfd("tenant", "revoke", "clinic", "--database", database, "--token", fingerprint)
    assert out == f"Revoked: {fingerprint}\n"
    assert [one.scope for one in tenants.list()[0].tokens if one.valid] == [Scope.CLIENT]
    assert hyperfd("tenant", "remove", "clinic", "--database", database)[:2] == (0, "Removed: clinic\n")
    assert tenants.list() == []
    assert hyperfd("tenant", "remove", "clinic", "--database", database)[0] == 1
    store.close()


def test_a_state_is_copied_checked_and_found_damaged(hyperfd, state, database):
    code, out, _ = hyperfd("db", "copy", state, database)
    assert code == 0 and "2 tasks" in out and "counted again" in out
    assert hyperfd("db", "copy", state, database)[0] == 1
    code, out, _ = hyperfd("db", "check", "--database", database)
    assert code == 0 and "Format 5" in out and "2 tasks" in out
    assert hyperfd("db", "upgrade", "--database", database)[0] == 0
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DELETE FROM spaces")
        connection.commit()
    code, out, err = hyperfd("db", "check", "--database", database)
    assert code == 1 and "tasks.space_signature: 2 rows refer to spaces" in out and "restore a backup" in err
