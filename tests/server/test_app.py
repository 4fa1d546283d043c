"""What the server refuses, and how it says so."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("fastapi", reason="the extra `server` is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")
from starlette.testclient import TestClient

from nni_hyperfd.platform import Caller, EmbeddedPlatform, TenantPlatform
from nni_hyperfd.platform.problems import PROBLEMS
from nni_hyperfd.server import bodies
from nni_hyperfd.server.app import application
from nni_hyperfd.state.store import sqlite_engine
from nni_hyperfd.task import Scope
from support.platform_contract import SPACE, described, opened, run_next


@pytest.fixture
def platform(tmp_path):
    platform = EmbeddedPlatform(tmp_path / "state.sqlite")
    yield platform
    platform.close()


@pytest.fixture
def http(platform):
    headers = {"Authorization": f"Bearer {platform.tenants.add('a')}"}
    return TestClient(application(platform), raise_server_exceptions=False, headers=headers)


@pytest.fixture
def own(platform, http):
    """The platform as the tenant sees it."""
    return TenantPlatform(platform, Caller(1, "a", Scope.CLIENT))


def refused(response, status, word, detail):
    assert response.status_code == status and response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == PROBLEMS + word and problem["status"] == status
    assert detail in problem["detail"], problem["detail"]


SPACE_MESSAGE = {"kind": SPACE.kind, "definition": dict(SPACE.definition)}
OPEN = {"experiment": "e", "space": SPACE_MESSAGE, "settings": {}}


def test_every_refusal_has_a_word_and_changes_nothing(platform, http, own):
    task_id = described(own)
    before = platform.tasks()
    refused(http.get("/v1/tasks/77"), 404, "unknown-task", "there is no task 77")
    refused(http.get("/v1/nothing"), 404, "request", "Not Found")
    refused(http.put(f"/v1/tasks/{task_id}"), 405, "request", "Method Not Allowed")
    refused(http.get(f"/v1/tasks/{10**30}"), 422, "request", "task_id")
    refused(http.post("/v1/tasks", json=OPEN | {"settings": {"budget": 0}}), 422, "settings", "budget: 0 is no whole")
    refused(
        http.post("/v1/tasks", json=OPEN | {"settings": {"candidates": 10**9}}), 422, "settings", "than this server"
    )
    refused(http.post("/v1/tasks", json=OPEN | {"colour": 1}), 422, "request", "colour: Extra inputs")
    changed = {"kind": "hpo", "definition": {"y": {"_type": "choice", "_value": [1]}}}
    refused(http.post("/v1/tasks", json=OPEN | {"space": changed}), 422, "search-space", "another search space")
    result = f"/v1/tasks/{task_id}/results/1"
    refused(http.put(result, json={"performance": "0.5x"}), 422, "request", "performance")
    for body in (
        b'{"performance": NaN}',
        b'{"performance": 1e39}',
        b'{"performance"',
        b"\x80\x04K\x01.",
        b"[" * 100_000,
    ):
        answer = http.put(result, content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422) and answer.json()["type"] == PROBLEMS + "request"
    place = f"/v1/tasks/{task_id}/descriptions/0"
    refused(http.put(place, json={"description": {"version": 1}}), 422, "message", "has version 1 of the protocol")
    refused(http.get(f"/v1/tasks/{task_id}/jobs/extract/weights/{64 * '0'}"), 404, "request", "other weights now")
    assert platform.tasks() == before


@pytest.mark.parametrize(
    ("parameter", "detail"),
    [
        ({"_type": "choice", "_value": [float("nan"), 1]}, "nan is not finite"),
        ({"_type": "uniform", "_value": [-1.7e308, 1.7e308]}, "not finite, or too large"),
        ({"_type": "choice", "_value": [10**400, 1]}, "a whole number is too large"),
        ({"_type": "randint", "_value": [0, 10**30]}, "a whole number is too large"),
        ({"_type": "choice", "_value": ["\ud800", "b"]}, "surrogates not allowed"),
        ({"_type": "choice", "\ud800": 1}, "surrogates not allowed"),
        ({"_type": "\ud800"}, "surrogates not allowed"),
        ({"_value": json.loads("[" * 60 + "]" * 60)}, "nested more than 50 deep"),
    ],
)
def test_numbers_and_texts_that_nothing_can_work_with_do_not_come_in(parameter, detail, http, platform):
    body = json.dumps(OPEN | {"space": {"kind": "hpo", "definition": {"x": parameter}}})
    answer = http.post("/v1/tasks", content=body, headers={"content-type": "application/json"})
    refused(answer, 422, "request", detail)
    assert platform.tasks() == []


def test_nul_is_no_part_of_a_name_and_left_out_of_a_reason(http, platform, own):
    """PostgreSQL does not take it in text."""
    refused(
        http.post("/v1/tasks", json=OPEN | {"experiment": "a\0b"}), 422, "request", "experiment: String should match"
    )
    task_id = opened(own)
    run_next(own, task_id, 0)
    result = {"performance": None, "reason": "a\0b"}
    assert http.put(f"/v1/tasks/{task_id}/results/0", json=result).status_code == 204
    assert platform.task(task_id).trials[0].reason == "a b"


def test_a_body_that_is_too_large_is_refused_announced_or_not(http, platform, own, monkeypatch):
    task_id = opened(own)
    monkeypatch.setattr(bodies, "MAX_UPDATE_BYTES", 1000)
    place, body = f"/v1/tasks/{task_id}/close", json.dumps({"update": {"x": "y" * 2000}}).encode()
    headers = {"content-type": "application/json"}
    refused(http.post(place, content=body, headers=headers), 413, "too-large", "larger than")
    answer = http.post(place, content=iter([body[:900], body[900:]]), headers=headers)
    refused(answer, 413, "too-large", "larger than 1000")
    assert platform.task(task_id).closed is None


def test_a_fault_of_the_server_tells_nothing_of_its_inside(http, platform, monkeypatch):
    monkeypatch.setattr(platform.store.database, "engine", None)
    answer = http.get("/v1/tasks/1")
    assert answer.status_code == 500 and answer.json()["type"] == PROBLEMS + "server"
    assert "engine" not in answer.text and http.get("/health/live").status_code == 200


def test_a_state_that_cannot_be_read_is_a_503_with_the_time_to_try_again(http, platform, monkeypatch, tmp_path, caplog):
    assert http.get("/health/ready").json()["ready"] is True
    monkeypatch.setattr(platform.store.database, "engine", sqlite_engine(tmp_path / "gone" / "state.sqlite"))
    for place in ("/health/ready", "/v1/tasks/1"):
        answer = http.get(place)
        refused(answer, 503, "state", "cannot use its state now")
        path = str(platform.store.path)
        assert path not in answer.text and path in caplog.text, "it is for the operator"
        assert int(answer.headers["retry-after"]) > 0
    assert http.get("/health/live").status_code == 200


def test_the_description_of_the_routes_names_the_models(http):
    described = http.get("/openapi.json").json()
    assert {"TaskMessage", "TrialMessage", "Problem"} <= set(described["components"]["schemas"])
    assert all(path.startswith(("/v1/", "/health/")) for path in described["paths"])
