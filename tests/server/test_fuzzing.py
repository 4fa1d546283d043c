"""Requests made from the description of the routes, sensible and senseless ones, with and without a token.

Some hundred of them, or (`-m long`) 10,000.
"""

from __future__ import annotations

import itertools
import random
import sqlite3
from collections import Counter
from contextlib import closing, suppress
from functools import partial
from types import SimpleNamespace

import pytest

pytest.importorskip("schemathesis", reason="schemathesis is not installed")
pytest.importorskip("fastapi", reason="the extra `server` is not installed")
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from nni_hyperfd.platform import EmbeddedPlatform, TenantPlatform
from nni_hyperfd.server.app import application
from nni_hyperfd.server.limits import Limits
from nni_hyperfd.task import Scope
from support.platform_contract import described, opened, run_next

TASKS = 10


@pytest.fixture
def place(tmp_path):
    """A server with tasks of two tenants, and tokens of one of them."""
    platform = EmbeddedPlatform(tmp_path / "state.sqlite")
    tenants = platform.tenants
    tokens = {"a": tenants.add("a", open_tasks=0), "reads": tenants.add("a", Scope.READ), None: None}
    own = TenantPlatform(platform, tenants.caller(tokens["a"]))
    opened(TenantPlatform(platform, tenants.caller(tenants.add("b"))))
    yield SimpleNamespace(app=application(platform, Limits(10**6)), tokens=tokens, path=platform.store.path, own=own)
    platform.close()


def known_ids(looking, own):
    """Ids of tasks and of trials; those that requests have deleted are made up for by new tasks in the middle."""
    ids = {name: [row[0] for row in looking.execute(f"SELECT id FROM {name}s")] for name in ("task", "trial")}
    for number in range(len(ids["task"]), TASKS):
        task_id = described(own, experiment=f"{max(ids['trial'], default=0)} {number}", budget=4)
        for parameter_id in (1, 2):
            run_next(own, task_id, parameter_id)
        own.observe(task_id, 1, 0.5)
    return ids if len(ids["task"]) >= TASKS else known_ids(looking, own)


def aimed(case, ids, generator):
    """Most ids become those of tasks and trials that there are."""
    for name, value in case.path_parameters.items():
        known = ids.get(name.removesuffix("_id"), range(3))
        if name.endswith("_id") and str(value).isdigit() and generator.random() < 0.8:
            case.path_parameters[name] = generator.choice(known)
    return case


@pytest.mark.parametrize(
    "requests", [pytest.param(150, marks=pytest.mark.slow), pytest.param(10_000, marks=pytest.mark.long)]
)
def test_no_request_breaks_the_server_and_no_refused_one_changes_anything(requests, place):
    schema = schemathesis.openapi.from_asgi("/openapi.json", place.app)
    operations = [found.ok() for found in schema.get_all_operations()]
    statuses, generator = Counter(), random.Random(0)
    each = requests // (len(operations) * len(list(GenerationMode)))
    with closing(sqlite3.connect(place.path)) as looking:

        def version():
            """Another number after every transaction that has changed something."""
            return looking.execute("PRAGMA data_version").fetchone()[0]

        def ask(case):
            kind = generator.choice(["a", "a", "reads", None])
            headers = {} if kind is None else {"Authorization": f"Bearer {place.tokens[kind]}"}
            before = version()
            answer = case.call(headers=headers)
            statuses[kind, answer.status_code] += 1
            assert answer.status_code < 500, (case.method, case.formatted_path, case.body, answer.text)
            if answer.status_code >= 400:
                assert version() == before, (case.method, case.formatted_path, case.body, answer.text)
                assert "type" in answer.json(), answer.text

        for number in itertools.count():
            for operation, mode in itertools.product(operations, GenerationMode):
                aim = partial(aimed, ids=known_ids(looking, place.own), generator=generator)
                strategy = operation.as_strategy(generation_mode=mode).map(aim)
                examples = settings(
                    max_examples=each, deadline=None, database=None, suppress_health_check=list(HealthCheck)
                )
                with suppress(Unsatisfiable):  # a route without parameters cannot be asked wrongly
                    seed(number)(examples(given(strategy)(ask)))()
            if statuses.total() >= requests:
                break
    print(f"{statuses.total()} requests: {dict(sorted(statuses.items(), key=str))}")
    assert {status for kind, status in statuses if kind is None} <= {200, 204, 401, 404, 405, 413}
    assert sum(count for (kind, status), count in statuses.items() if kind == "a" and status < 300) > requests / 50
