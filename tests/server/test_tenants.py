"""Every route, asked by those who may not: they learn nothing, and nothing changes."""

from __future__ import annotations

import base64
import threading
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi", reason="the extra `server` is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")
import fastapi.routing
from sqlalchemy import select, update
from starlette.testclient import TestClient

from nni_hyperfd.platform import EmbeddedPlatform, TenantPlatform
from nni_hyperfd.platform.problems import PROBLEMS
from nni_hyperfd.platform.protocol import HOLDER_HEADER, VERSION_HEADER
from nni_hyperfd.server import auth
from nni_hyperfd.server.app import application
from nni_hyperfd.server.limits import Limits
from nni_hyperfd.state.tables import TokenRow, now
from nni_hyperfd.task import Scope
from support.platform_contract import DESCRIPTION, SPACE, described, run_next
from support.rows import all_rows

OPEN = {"experiment": "e", "space": {"kind": SPACE.kind, "definition": dict(SPACE.definition)}, "settings": {}}
CASES = {
    ("POST", "/v1/tasks"): OPEN,
    ("GET", "/v1/tasks/{task_id}"): None,
    ("DELETE", "/v1/tasks/{task_id}"): None,
    ("DELETE", "/v1/tasks/{task_id}/experience"): None,
    ("POST", "/v1/tasks/{task_id}/next-trial"): None,
    ("PUT", "/v1/trials/{trial_id}/start"): {"parameter_id": 9},
    ("PUT", "/v1/tasks/{task_id}/results/{parameter_id}"): {"performance": 0.5},
    ("POST", "/v1/tasks/{task_id}/experience"): {"configuration": {"x": 1}, "performance": 0.5, "phase": "import"},
    ("POST", "/v1/tasks/{task_id}/settle"): None,
    ("POST", "/v1/tasks/{task_id}/prepare"): None,
    ("PUT", "/v1/tasks/{task_id}/picks/{parameter_id}"): {"configuration": {"x": 1}, "rank": 1},
    ("GET", "/v1/tasks/{task_id}/ranking"): None,
    ("POST", "/v1/tasks/{task_id}/release"): {"gone": [[2, 1]]},
    ("GET", "/v1/tasks/{task_id}/jobs/{phase}"): None,
    ("GET", "/v1/tasks/{task_id}/jobs/{phase}/weights/{sha256}"): None,
    ("PUT", "/v1/tasks/{task_id}/descriptions/{parameter_id}"): {"description": DESCRIPTION.pack()},
    ("POST", "/v1/tasks/{task_id}/close"): {"update": None},
}
"""Every route that needs a token, with a body that it understands."""
OPERATING = {("GET", "/metrics"), ("GET", "/ui"), ("DELETE", "/v1/tenants/{name}")}
"""Routes that are an operator's alone, or show each what is his own: tests/server/test_operating.py, test_pages.py."""


DELETING = ("DELETE", "/v1/tasks/{task_id}/experience")  # an operator may


def filled(path, task_id, trial_id):
    return path.format(task_id=task_id, trial_id=trial_id, parameter_id=1, phase="extract", sha256=64 * "0")


@pytest.fixture
def place(tmp_path):
    """A server with two tenants, of which `a` has a task in the middle."""
    platform = EmbeddedPlatform(tmp_path / "state.sqlite")
    tokens = {}
    for name in ("expired", "revoked"):
        tokens[name] = platform.tenants.add("a")
    with platform.store.write() as session:
        session.execute(update(TokenRow).where(TokenRow.id == 1).values(expires=now() - timedelta(seconds=1)))
        session.execute(update(TokenRow).where(TokenRow.id == 2).values(revoked=now()))
    tokens["client"], tokens["read"] = platform.tenants.add("a"), platform.tenants.add("a", Scope.READ)
    tokens["other"], tokens["admin"] = platform.tenants.add("b"), platform.tenants.add("o", Scope.ADMIN)
    own = TenantPlatform(platform, platform.tenants.caller(tokens["client"]))
    task_id = described(own)
    trial = run_next(own, task_id, 1)
    http = TestClient(application(platform), raise_server_exceptions=False)
    yield SimpleNamespace(platform=platform, tokens=tokens, http=http, task_id=task_id, trial_id=trial.id, own=own)
    platform.close()


def ask(place, case, token, task_id=None, trial_id=None, **headers):
    method, path = case
    path = filled(path, task_id or place.task_id, trial_id or place.trial_id)
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return place.http.request(method, path, json=CASES[case], headers=headers)


def word(answer):
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.json()["type"].removeprefix(PROBLEMS)


def test_every_route_has_a_case(place):
    listed = getattr(fastapi.routing, "iter_route_contexts", list)(place.http.app.routes)
    routes = {(method, route.path) for route in listed for method in route.methods - {"HEAD"}}
    assert routes == {*CASES, *OPERATING, *(("GET", path) for path in auth.OPEN)}, (
        "a new route needs a case, or to be open to all"
    )


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_who_may_not_learns_nothing_and_changes_nothing(case, place):
    before, looks = all_rows(place.platform.store), case[0] == "GET"
    refused = {kind: ask(place, case, place.tokens[kind]) for kind in ("expired", "revoked")}
    refused |= {"none": ask(place, case, None), "unknown": ask(place, case, "hfd_" + 43 * "A")}
    for answer in refused.values():
        assert (answer.status_code, word(answer)) == (401, "token") and "Bearer" in answer.headers["www-authenticate"]
    assert refused["revoked"].content == refused["unknown"].content
    assert "expired" in refused["expired"].text and "expired" not in refused["revoked"].text
    reading = ask(place, case, place.tokens["read"])
    assert (reading.status_code in (200, 404)) if looks else (word(reading) == "scope" and reading.status_code == 403)
    if "{" in case[1]:
        missing = ask(place, case, place.tokens["other"], 77, 77)
        assert (missing.status_code, missing.text) == (200, '{"removed":false}') or word(missing) == "unknown-task"
        for kind in ("other",) if looks or case == DELETING else ("other", "admin"):
            answer = ask(place, case, place.tokens[kind])
            assert answer.status_code == missing.status_code
            known = place.trial_id if "trial_id" in case[1] else place.task_id
            assert answer.text.replace(f" {known}", " 77") == missing.text, "as if it did not exist"
    assert all_rows(place.platform.store) == before
    assert ask(place, case, place.tokens["client"]).status_code in (200, 204, 404), "and the tenant may"


def test_tenants_have_experiments_of_their_own_and_an_operator_sees_all(place):
    case = ("POST", "/v1/tasks")
    theirs = ask(place, case, place.tokens["other"]).json()["id"]
    assert ask(place, case, place.tokens["client"]).json()["id"] == place.task_id != theirs
    for task_id in (place.task_id, theirs):
        look = "GET", "/v1/tasks/{task_id}"
        assert ask(place, look, place.tokens["admin"], task_id).json()["id"] == task_id
    assert ask(place, look, place.tokens["client"], theirs).status_code == 404


def test_a_browser_may_look_with_the_token_as_password_and_do_nothing(place):
    def basic(text):
        return {"Authorization": "Basic " + base64.b64encode(text).decode()}

    path, token = f"/v1/tasks/{place.task_id}", place.tokens["client"]
    assert place.http.get(path, headers=basic(f"anybody:{token}".encode())).status_code == 200
    for headers in (basic(b"anybody:"), basic(token.encode()), basic(b"\xff:\xff"), {"Authorization": "Basic !"}):
        assert place.http.get(path, headers=headers).status_code == 401
    assert place.http.delete(path, headers=basic(f"anybody:{token}".encode())).status_code == 401
    for text in ("Bearer", f"Token {token}", token, f"Bearer {token} {token}"):
        answer = place.http.get(path, headers={"Authorization": text})
        assert (answer.status_code, word(answer)) == (401, "token") and "Basic" in answer.headers["www-authenticate"]


def test_a_revoked_token_is_known_for_seconds_only(place, monkeypatch):
    look = "GET", "/v1/tasks/{task_id}"
    monkeypatch.setattr(auth, "SECONDS", 0.5)
    assert ask(place, look, place.tokens["client"]).status_code == 200
    place.platform.tenants.revoke("a")
    deadline = time.monotonic() + 10
    while ask(place, look, place.tokens["client"]).status_code == 200:
        assert time.monotonic() < deadline


def test_the_newer_of_two_advisors_holds_the_experiment(place):
    token, older, newer = place.tokens["client"], {HOLDER_HEADER: "a" * 16}, {HOLDER_HEADER: "b" * 16}
    case = ("POST", "/v1/tasks")
    for holder in (older, newer):
        assert ask(place, case, token, **holder).json() == {"id": place.task_id}
    before = all_rows(place.platform.store)
    for case in CASES.keys() - {DELETING}:
        answer = ask(place, case, token, **older) if case[1] != "/v1/tasks" else None
        if answer is not None and case[0] != "GET":
            assert (answer.status_code, word(answer)) == (409, "held") and "newer advisor" in answer.text, case
    assert ask(place, ("GET", "/v1/tasks/{task_id}"), token, **older).status_code == 200
    assert all_rows(place.platform.store) == before
    result = ("PUT", "/v1/tasks/{task_id}/results/{parameter_id}")
    assert ask(place, result, token, **newer).status_code == 204
    assert place.platform.task(place.task_id).best == 0.5
    assert ask(place, result, token, **{HOLDER_HEADER: "a b"}).status_code == 422


def test_quotas_and_the_rate_are_told_from_other_refusals(place):
    place.platform.tenants.add("b", open_tasks=1)
    token = place.tokens["other"]
    http = TestClient(application(place.platform, Limits(requests_a_minute=3)), raise_server_exceptions=False)
    headers = {"Authorization": f"Bearer {token}"}
    answers = [http.post("/v1/tasks", json=OPEN | {"experiment": name}, headers=headers) for name in "12134"]
    assert [answer.status_code for answer in answers] == [200, 429, 200, 429, 429]
    assert [word(answers[number]) for number in (1, 3, 4)] == ["quota", "rate", "rate"]
    assert 1 <= int(answers[3].headers["retry-after"]) <= 60 and "retry-after" not in answers[1].headers
    headers = {"Authorization": f"Bearer {place.tokens['client']}"}
    assert http.get(f"/v1/tasks/{place.task_id}", headers=headers).status_code == 200, "others are not held up"


def test_a_request_that_takes_too_long_is_answered_and_may_be_repeated(place):
    http = TestClient(application(place.platform, Limits(seconds=0.3)), raise_server_exceptions=False)
    headers = {"Authorization": f"Bearer {place.tokens['client']}"}
    path = f"/v1/tasks/{place.task_id}/results/1"
    answers = []
    with http, place.platform.store.write() as session:
        session.execute(select(1))  # takes the lock that the request waits for
        asking = threading.Thread(
            target=lambda: answers.append(http.put(path, json={"performance": 0.5}, headers=headers))
        )
        asking.start()
        asking.join()
        assert (answers[0].status_code, word(answers[0])) == (503, "busy") and int(answers[0].headers["retry-after"])
    assert place.http.put(path, json={"performance": 0.5}, headers=headers).status_code == 204
    assert place.platform.task(place.task_id).best == 0.5


def test_another_version_of_the_protocol_is_told_so(place):
    headers = {"Authorization": f"Bearer {place.tokens['client']}"}
    path = f"/v1/tasks/{place.task_id}"
    assert place.http.get(path, headers=headers | {VERSION_HEADER: "1"}).status_code == 200
    for answer in (
        place.http.get(path, headers=headers | {VERSION_HEADER: "2"}),
        place.http.get(path, headers=headers | {VERSION_HEADER: b"\xe4"}),
        place.http.get("/v2/tasks/1", headers=headers),
        place.http.post("/v0/tasks"),
    ):
        assert (answer.status_code, word(answer)) == (400, "protocol") and "speaks version 1" in answer.text


def test_packed_and_huge_bodies_are_refused_before_they_are_read(place):
    headers = {"Authorization": f"Bearer {place.tokens['client']}", "Content-Type": "application/json"}
    keys = b'{"update": {' + b",".join(b'"%d":0' % number for number in range(10**6)) + b"}}"
    before = all_rows(place.platform.store)

    def send(path, body, **more):
        return place.http.post(f"/v1/tasks/{place.task_id}/{path}", content=body, headers=headers | more)

    for packing in ("gzip", "br", "zstd, gzip"):
        answer = send("close", b"\x1f\x8b" + bytes(100), **{"Content-Encoding": packing})
        assert answer.status_code == 415 and "Content-Encoding" in answer.text
    assert word(send("experience", keys)) == "too-large"
    assert word(send("experience", iter([keys[: 2**19], keys[2**19 :]]))) == "too-large"
    answer = send("close", keys)
    assert (answer.status_code, word(answer)) == (422, "message") and len(answer.content) < 1000
    assert word(send("close", b'{"update": {"a": ' + 2 * 10**6 * b"[")) == "request"
    assert all_rows(place.platform.store) == before
