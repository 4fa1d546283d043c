"""Tenants, and tokens that are shown once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from nni_hyperfd.platform import Caller, EmbeddedPlatform, QuotaError, RefusedError, TenantPlatform, TokenError
from nni_hyperfd.state.tables import TaskRow, TokenRow, now
from nni_hyperfd.task import Scope
from support.platform_contract import opened
from support.rows import all_rows


@pytest.fixture
def platform(tmp_path):
    platform = EmbeddedPlatform(tmp_path / "state.sqlite")
    yield platform
    platform.close()


@pytest.fixture
def tenants(platform):
    return platform.tenants


def fingerprints(tenants, valid):
    return [token.fingerprint for one in tenants.list() for token in one.tokens if token.valid is valid]


def test_a_token_stands_for_its_tenant_and_is_nowhere_in_the_state(tenants, platform):
    first, second = tenants.add("a"), tenants.add("b", Scope.READ)
    assert tenants.caller(first) == Caller(1, "a", Scope.CLIENT)
    assert tenants.caller(second) == Caller(2, "b", Scope.READ)
    assert first.startswith("hfd_") and len(first) == 4 + 43, "256 bits"
    platform.store.engine.dispose()
    for token in (first, second):
        assert token not in str(all_rows(platform.store)) and token not in str(tenants.list())
        assert not any(token[4:].encode() in path.read_bytes() for path in platform.store.path.parent.iterdir())
    for wrong in ("", "hfd_", first[:-1], first + "a", "hfd_" + 43 * "a", "x" * 10**6, "\0"):
        with pytest.raises(TokenError, match="the token is not valid"):
            tenants.caller(wrong)


def test_a_rotated_token_stays_valid_for_the_overlap_and_no_longer_than_it_was(tenants):
    read, old = tenants.add("a", Scope.READ), tenants.add("a")
    new = tenants.rotate("a")
    assert {tenants.caller(token).name for token in (read, old, new)} == {"a"}
    (_, old_view, read_view) = tenants.list()[0].tokens
    assert now().replace(tzinfo=None) + timedelta(hours=23) < old_view.expires < read_view.expires
    newest = tenants.rotate("a", overlap_hours=0)
    for token in (old, new):
        with pytest.raises(TokenError, match="the token has expired"):
            tenants.caller(token)
    assert tenants.caller(read) and tenants.caller(newest)
    assert len(fingerprints(tenants, True)) == len(fingerprints(tenants, False)) == 2
    with pytest.raises(RefusedError, match="no valid token of scope admin"):
        tenants.rotate("a", Scope.ADMIN)


def test_a_revoked_token_is_as_unknown_as_one_that_never_was(tenants, platform):
    tokens = [tenants.add("a") for _ in range(3)]
    newest, *others = fingerprints(tenants, True)
    assert tenants.revoke("a", newest) == [newest]
    with pytest.raises(TokenError, match="the token is not valid"):
        tenants.caller(tokens[2])
    assert sorted(tenants.revoke("a")) == sorted(others) and tenants.revoke("a") == []
    with platform.store.write() as session:
        session.execute(update(TokenRow).values(expires=now()))
    with pytest.raises(TokenError, match="the token is not valid"):
        tenants.caller(tokens[0])
    with pytest.raises(RefusedError, match="it has no token 00000000"):
        tenants.revoke("a", "00000000")
    with pytest.raises(RefusedError, match="there is no tenant 'b'"):
        tenants.revoke("b")


def test_a_tenant_with_tasks_stays(tenants, platform):
    token = tenants.add("a")
    opened(TenantPlatform(platform, tenants.caller(token)))
    with pytest.raises(RefusedError, match="tenant a: it has 1 tasks"):
        tenants.remove("a")
    tenants.add("b")
    tenants.remove("b")
    assert [one.name for one in tenants.list()] == ["a"] and tenants.caller(token)
    for name in ("", ".a", "a b", "a\n", "ä", 65 * "a", "a/b"):
        with pytest.raises(RefusedError, match="a name has up to 64 letters"):
            tenants.add(name)


def test_quotas(tenants, platform):
    client = TenantPlatform(platform, tenants.caller(tenants.add("a", open_tasks=2, tasks_a_day=3)))
    other = TenantPlatform(platform, tenants.caller(tenants.add("b")))
    assert opened(client, "1") == opened(client, "1") and opened(client, "2")
    with pytest.raises(QuotaError, match="2 tasks of this tenant are open"):
        opened(client, "3")
    assert opened(client, "2") and opened(other, "3"), "one that is begun goes on"
    client.close_task(1)
    opened(client, "3")
    client.close_task(2)
    with pytest.raises(QuotaError, match="begun 3 tasks within 24 hours"):
        opened(client, "4")
    tenants.add("a", tasks_a_day=4)
    (a, b) = tenants.list()
    assert (a.open_tasks, a.tasks_a_day, a.tasks, a.open) == (2, 4, 3, 1) and b.open_tasks == 100
    opened(client, "4")
    with platform.store.write() as session:
        session.execute(update(TaskRow).values(created=now() - timedelta(hours=25)))
    tenants.add("a", open_tasks=0)
    assert all(opened(client, str(number)) for number in range(5, 9)), "a day later, any number may be open"
