"""What an operator sees of a server and does on it: readiness, metrics, logs, deleting."""

from __future__ import annotations

import json
from datetime import timedelta
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi", reason="the extra `server` is not installed")
pytest.importorskip("prometheus_client", reason="the extra `server` is not installed")
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select
from starlette.testclient import TestClient

from nni_hyperfd.platform import EmbeddedPlatform
from nni_hyperfd.platform.figures import waiting
from nni_hyperfd.platform.served import ServedPlatform
from nni_hyperfd.server import logs, operating
from nni_hyperfd.server.app import application
from nni_hyperfd.server.metrics import REQUEST_HEADER
from nni_hyperfd.state.migrations import FORMAT
from nni_hyperfd.state.tables import TaskRow, TenantRow, now
from nni_hyperfd.task import Scope
from support.platform_contract import SPACE
from support.rows import add_task, all_rows


class Nobody:
    def put(self, space_signature):
        pass


@pytest.fixture
def place(tmp_path):
    """A server with two tenants and their tasks, of which one has not been learned from, and an operator."""
    platform = ServedPlatform(tmp_path / "state.sqlite", None, Nobody())
    tokens = {name: platform.tenants.add(name) for name in ("a", "b")}
    tokens["o"] = platform.tenants.add("o", Scope.ADMIN)
    with platform.store.read() as session:
        ids = {row.name: row.id for row in session.scalars(select(TenantRow))}
    add_task(platform, SPACE, "one", [0.1, 0.2], tenant_id=ids["a"])
    add_task(platform, SPACE, "two", [0.1, None], tenant_id=ids["a"], closed=False)
    add_task(platform, SPACE, "three", [0.1, 0.2, 0.3], tenant_id=ids["b"], learned=False)
    logs.begin(tmp_path / "access.jsonl", tmp_path / "audit.jsonl")
    http = TestClient(application(platform), raise_server_exceptions=False)

    def ask(method, path, name="o", **more):
        headers = {} if name is None else {"Authorization": f"Bearer {tokens[name]}"}
        return http.request(method, path, headers=headers, **more)

    def lines(name):
        return [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]

    yield SimpleNamespace(platform=platform, ask=ask, lines=lines, tokens=tokens)
    for logger in (logs.ACCESS, logs.AUDIT):
        logger.handlers, logger.propagate = [], True
    platform.close()


def test_readiness_says_the_format_and_how_far_the_workers_are_behind(place, monkeypatch):
    found = place.ask("GET", "/health/ready", None)
    assert found.status_code == 200
    assert found.json() == {
        "database": "ok", "format": FORMAT, "waiting": 1, "lag": pytest.approx(0, abs=60), "ready": True,
    }  # fmt: skip
    monkeypatch.setattr(operating, "MOST_LAG", -1.0)
    late = place.ask("GET", "/health/ready", None)
    assert late.status_code == 503 and late.json()["ready"] is False


def test_metrics_are_an_operators_and_count_what_is_in_the_database(place):
    place.ask("GET", "/v1/tasks/1", "a")
    place.ask("GET", "/v1/tasks/1", "b")
    place.ask("GET", "/v1/tasks/1", None)
    place.ask("GET", "/nowhere/secret-name", "a")
    assert place.ask("GET", "/metrics", "a").status_code == 403
    found = place.ask("GET", "/metrics")
    samples = {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(found.text)
        for sample in family.samples
    }
    assert samples["hyperfd_tasks", "open", "a"] == samples["hyperfd_tasks", "closed", "a"] == 1
    assert samples["hyperfd_tasks", "closed", "b"] == 1 and samples["hyperfd_tasks", "closed", "o"] == 0
    assert (samples["hyperfd_results", "a"], samples["hyperfd_results", "b"]) == (3, 3)
    assert samples["hyperfd_waiting_tasks",] == 1 and samples["hyperfd_worker_lag_seconds",] >= 0
    assert samples["hyperfd_request_seconds_count", "GET", "/v1/tasks/{task_id}", "200"] == 1
    assert samples["hyperfd_refused_requests_total", "unknown-task"] == 1
    assert samples["hyperfd_refused_requests_total", "token"] == 1
    assert samples["hyperfd_refused_requests_total", "scope"] == 1
    assert "secret" not in found.text


def test_the_logs_say_who_did_what_when_and_nothing_of_its_content(place):
    answer = place.ask("GET", "/v1/tasks/1?token=secret", "a")
    opened = {"experiment": "secret", "settings": {"service": False}}
    opened["space"] = {"kind": SPACE.kind, "definition": dict(SPACE.definition)}
    task_id = place.ask("POST", "/v1/tasks", "a", json=opened).json()["id"]
    place.ask("POST", f"/v1/tasks/{task_id}/close", "a", json={"update": None})
    place.ask("DELETE", f"/v1/tasks/{task_id}/experience", "a")
    place.ask("GET", "/v1/tasks/secret", None)
    access, audit = place.lines("access"), place.lines("audit")
    first = access[0]
    assert {name: first[name] for name in ("event", "method", "route", "status", "tenant", "reason")} == {
        "event": "request", "method": "GET", "route": "/v1/tasks/{task_id}", "status": 200, "tenant": "a",
        "reason": None,
    }  # fmt: skip
    assert (
        first["request"] == answer.headers[REQUEST_HEADER] and first["seconds"] > 0 and first["time"].endswith("+00:00")
    )
    assert (access[-1]["tenant"], access[-1]["status"], access[-1]["reason"]) == (None, 401, "token")
    assert [(line["event"], line["tenant"]) for line in audit] == [
        ("task opened", "a"), ("task closed", "a"), ("tasks deleted", "a"),
    ]  # fmt: skip
    assert audit[0]["task"] == audit[1]["task"] == task_id and audit[2]["tasks"] == [task_id]
    assert audit[1]["request"] == access[2]["request"]
    said = json.dumps([access, audit])
    assert "secret" not in said and not any(token in said for token in place.tokens.values())


def test_a_tenant_deletes_its_task_and_an_operator_any_and_whole_tenants(place):
    rows = all_rows(place.platform.store)
    for method, path, name in (
        ("DELETE", "/v1/tasks/3/experience", "a"),
        ("DELETE", "/v1/tenants/b", "a"),
        ("DELETE", "/v1/tenants/nobody", "o"),
    ):
        assert place.ask(method, path, name).status_code in (403, 404, 409)
    assert all_rows(place.platform.store) == rows
    own = place.ask("DELETE", "/v1/tasks/1/experience", "a").json()
    assert own["tasks"] == [1] and own["extractors"] == [] and own["newest"] is False
    assert any("Left in what was learned: nothing" in sentence for sentence in own["said"])
    assert place.ask("DELETE", "/v1/tasks/1/experience", "a").status_code == 404
    assert place.ask("DELETE", "/v1/tasks/2/experience", "o").json()["tasks"] == [2]
    assert place.ask("DELETE", "/v1/tenants/b").json()["tasks"] == [3]
    assert place.platform.tasks() == [] and [one.name for one in place.platform.tenants.list()] == ["a", "o"]


def test_what_waits_longest_is_the_lag(tmp_path):
    platform = EmbeddedPlatform(tmp_path / "state.sqlite")
    assert waiting(platform.store) == (0, 0.0)
    for hours in (1, 3):
        add_task(platform, SPACE, f"e{hours}", [0.1], closed=False)
    with platform.store.write() as session:
        for hours, task in zip((1, 3), session.scalars(select(TaskRow)), strict=True):
            task.closed = now() - timedelta(hours=hours)
    count, lag = waiting(platform.store)
    assert count == 2 and lag == pytest.approx(3 * 3600, abs=60)
    platform.close()
