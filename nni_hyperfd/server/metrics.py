"""Seeing into a server: what every request took, and Prometheus metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from uuid import uuid4

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nni_hyperfd.platform import EmbeddedPlatform
from nni_hyperfd.platform.figures import figures
from nni_hyperfd.platform.problems import PROBLEMS
from nni_hyperfd.server.dependencies import Operator
from nni_hyperfd.server.logs import ACCESS, asking

REQUEST_HEADER = "HyperFD-Request"
"""Of every answer: the id under which the logs have the request."""

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)  # seconds
_LARGEST_PROBLEM = 10_000  # bytes of an answer that is looked into

router = APIRouter()


@router.get("/metrics", include_in_schema=False)
def metrics(request: Request, _operator: Operator) -> Response:
    """Prometheus metrics, for a token of scope `admin`."""
    return Response(generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE_LATEST)


class Metrics:
    """Of one application.

    Args:
        platform: that it serves.

    Attributes:
        registry: of all its metrics.
    """

    def __init__(self, platform: EmbeddedPlatform) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_OfPlatform(platform))
        labels = ["method", "route", "status"]
        self._seconds = Histogram(
            "hyperfd_request_seconds", "Time of requests.", labels, buckets=_BUCKETS, registry=self.registry
        )
        self._refused = Counter(
            "hyperfd_refused_requests", "Requests that were refused.", ["reason"], registry=self.registry
        )

    def seen(self, method: str, route: str, status: int, seconds: float, reason: str | None) -> None:
        """Count a request, and why it was refused if it was."""
        self._seconds.labels(method, route, str(status)).observe(seconds)
        if reason is not None:
            self._refused.labels(reason).inc()


class _OfPlatform(Collector):
    """What is counted in the database when somebody asks."""

    def __init__(self, platform: EmbeddedPlatform) -> None:
        self._platform = platform

    def describe(self) -> Iterator[Metric]:
        """Nothing, so that registering it asks nothing."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        found = figures(self._platform.store)
        tasks = GaugeMetricFamily("hyperfd_tasks", "Tasks of clients.", labels=["tenant", "state"])
        results = GaugeMetricFamily("hyperfd_results", "Results of clients.", labels=["tenant"])
        for tenant, use in found.use.items():
            tasks.add_metric([tenant, "open"], use.open)
            tasks.add_metric([tenant, "closed"], use.closed)
            results.add_metric([tenant], use.results)
        yield tasks
        yield results
        for name, what, value in (
            ("hyperfd_waiting_tasks", "Closed tasks that wait to be learned from.", found.waiting),
            ("hyperfd_worker_lag_seconds", "Time since the first waiting task was closed.", found.lag),
            ("hyperfd_extractor_versions", "Versions of the extractor.", found.extractors),
            ("hyperfd_encoder_versions", "Versions of the configuration encoders.", found.encoders),
        ):
            yield GaugeMetricFamily(name, what, value=value)


class Observed:
    """Counts and logs every request, and gives it an id.

    Args:
        app: what answers them.
        metrics: where they are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        number, began = uuid4().hex, time.perf_counter()
        status, problem, body = 500, False, b""
        scope.setdefault("state", {})["request"] = number
        asking.set(scope)

        async def answer(message: Message) -> None:
            nonlocal status, problem, body
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.setdefault("headers", [])
                problem = (b"content-type", b"application/problem+json") in headers
                headers.append((REQUEST_HEADER.lower().encode(), number.encode()))
            elif problem and len(body) < _LARGEST_PROBLEM:
                body += message.get("body", b"")
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            seconds, route = time.perf_counter() - began, _route(scope)
            reason = _reason(body) if problem else None
            self._metrics.seen(scope["method"], route, status, seconds, reason)
            fields = {
                "method": scope["method"],
                "route": route,
                "status": status,
                "seconds": round(seconds, 4),
                "reason": reason,
            }
            ACCESS.info("request", extra={"fields": fields})


def _route(scope: Scope) -> str:
    """The template of a request's route; a path that has none is not repeated."""
    # Newer versions of FastAPI keep the prefix of a router apart from its routes.
    found = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    return str(getattr(found, "path", "-"))


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["type"]).removeprefix(PROBLEMS)
    except (ValueError, KeyError, TypeError):
        return "-"
