"""The web page of a server: for a tenant its own tasks, for an operator what all of them make together.

Made here, without a script. A browser asks for name and password; the password is the token, the name does not matter.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as resources

import numpy as np
from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from jinja2 import Environment, Template
from sqlalchemy import func, select

from nni_hyperfd.platform import EmbeddedPlatform, TaskView, TrialView
from nni_hyperfd.platform.figures import figures
from nni_hyperfd.report.state import mean_ranks_favourite
from nni_hyperfd.server.dependencies import Asking, Served
from nni_hyperfd.state import experience
from nni_hyperfd.state.tables import EncoderRow, ExtractorRow, TaskRow
from nni_hyperfd.task import Scope

MOST_TASKS = 50
"""Of a tenant, the newest, on its page."""
_EARLIER = 100  # tasks of all tenants before a task, the newest, from which mean rank is taken
_WIDTH, _HEIGHT, _MARGIN = 400, 260, 36  # of a drawing, in units that are pixels on a wide page

router = APIRouter()


@dataclass(frozen=True)
class Dot:
    """A point of a drawing, from the left and from the top, with its label."""

    x: float
    y: float
    label: str


@dataclass(frozen=True)
class Compared:
    """One task: of its tried configurations, the place of the first pick and that of mean rank's favourite.

    Attributes:
        task_id: of the task.
        of: how many configurations were tried; place 1 is the best.
        first: place of the first pick.
        mean_rank: place of the one that mean rank would have tried first.
    """

    task_id: int
    of: int
    first: int
    mean_rank: int


@router.get("/ui", include_in_schema=False)
def page(platform: Served, asking: Asking) -> HTMLResponse:
    """The page of whoever asks."""
    tasks = _tasks_of(platform, asking.tenant_id)
    shown = _template().render(
        tenant=asking.name,
        tasks=tasks[::-1],
        most=MOST_TASKS,
        tried={task.id: [trial for trial in task.trials if trial.tries] for task in tasks},
        described=_trial_text,
        compared=(compared := _compared(platform, tasks)),
        lines=_lines(compared),
        dots=_map(platform, tasks),
        size=(_WIDTH, _HEIGHT, _MARGIN),
        versions=_versions(platform, tasks),
        operator=figures(platform.store) if asking.scope is Scope.ADMIN else None,
    )
    return HTMLResponse(shown, headers=_headers())


def _tasks_of(platform: EmbeddedPlatform, tenant_id: int) -> list[TaskView]:
    """The newest tasks of a tenant, in order of arrival."""
    newest = select(TaskRow.id).where(TaskRow.tenant_id == tenant_id).order_by(TaskRow.id.desc()).limit(MOST_TASKS)
    with platform.store.read() as session:
        return list(experience.tasks(session, list(session.scalars(newest))))


def _trial_text(trial: TrialView) -> str:
    """The configuration of a trial, as short as it can be."""
    return ", ".join(
        f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}"
        for name, value in trial.configuration.items()
    )


def _compared(platform: EmbeddedPlatform, tasks: Sequence[TaskView]) -> list[Compared]:
    """The tasks in which first picks can be compared with mean rank's."""
    found = []
    for task in tasks:
        results = task.results.performance
        if task.closed is None or len(set(results)) < 2:
            continue
        favourite = mean_ranks_favourite(task, _earlier(platform, task))
        if favourite is not None:
            first, other = (1 + sum(one > results[index] for one in results) for index in (0, favourite))
            found.append(Compared(task.id, len(results), first, other))
    return found


def _earlier(platform: EmbeddedPlatform, task: TaskView) -> list[TaskView]:
    """The newest tasks of all tenants in the same space that were there to learn from before a task."""
    newest = (
        select(TaskRow.id)
        .where(TaskRow.space_signature == task.space.signature, TaskRow.id < task.id, TaskRow.learned.is_not(None))
        .order_by(TaskRow.id.desc())
        .limit(_EARLIER)
    )
    with platform.store.read() as session:
        return list(experience.tasks(session, list(session.scalars(newest))))


def _lines(compared: Sequence[Compared]) -> dict[str, list[Dot]]:
    """Mean places so far, relative to chance: 0 the best of the tried, 1 the worst; over the tasks, for both."""
    if len(compared) < 2:
        return {}
    found = {}
    for name in ("first", "mean_rank"):
        places = [(getattr(one, name) - 1) / (one.of - 1) for one in compared]
        means = np.cumsum(places) / np.arange(1, len(places) + 1)
        found[name] = [
            Dot(
                _MARGIN + (_WIDTH - 2 * _MARGIN) * number / (len(means) - 1),
                _MARGIN + (_HEIGHT - 2 * _MARGIN) * float(mean),
                f"up to task {one.task_id}: {mean:.2f}",
            )
            for number, (one, mean) in enumerate(zip(compared, means, strict=True))
        ]
    return found


def _map(platform: EmbeddedPlatform, tasks: Sequence[TaskView]) -> list[Dot]:
    """The tenant's data sets in the plane in which they differ most; none if fewer than three are described."""
    carried = platform.versions.carried(tasks, platform.versions.head_id())
    if len(carried) < 3:
        return []
    rows = np.array([h.numpy() for h in carried.values()], dtype=float)
    rows -= rows.mean(0)
    plane = rows @ np.linalg.svd(rows, full_matrices=False)[2][:2].T
    extent = float(np.abs(plane).max()) or 1.0
    middle, scale = np.array([_WIDTH, _HEIGHT]) / 2, (_HEIGHT / 2 - _MARGIN) / extent
    places = middle + scale * plane
    return [Dot(float(x), float(y), f"task {id}") for id, (x, y) in zip(carried, places, strict=True)]


def _versions(platform: EmbeddedPlatform, tasks: Sequence[TaskView]) -> list[tuple[str, str]]:
    """What the tenant is served by now, and where its tasks are in it."""
    spaces = {task.space.signature: task.space for task in tasks}
    with platform.store.read() as session:
        head = session.execute(select(ExtractorRow.id, ExtractorRow.created).where(ExtractorRow.head)).first()
        rows = session.execute(
            select(EncoderRow.space_signature, func.max(EncoderRow.id), func.max(EncoderRow.created))
            .where(EncoderRow.space_signature.in_(spaces))
            .group_by(EncoderRow.space_signature)
        ).all()
    found = [] if head is None else [("Extractor", f"version {head.id} of {head.created:%Y-%m-%d %H:%M}")]
    return found + [
        (f"Encoder of {spaces[signature].label}", f"version {number} of {created:%Y-%m-%d %H:%M}")
        for signature, number, created in rows
    ]


@cache
def _source() -> str:
    return resources(__package__).joinpath("page.html").read_text(encoding="utf-8")


@cache
def _template() -> Template:
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_source())


@cache
def _headers() -> dict[str, str]:
    """Nothing but the page's own style is allowed on it; nobody may frame or keep it."""
    style = re.search("<style>(.*?)</style>", _source(), re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    allowed = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return {
        "Content-Security-Policy": f"{allowed}; frame-ancestors 'none'",
        "X-Frame-Options": "DENY",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
