"""The server's routes: each turns a request into one call of the platform, and what that says into JSON.

Every route may be called again when its answer was lost (`PlatformClient`). Functions without `async` run in threads.
What a route is given as `platform` is the platform as the caller's tenant sees it.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Path, Response, Security
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

import nni_hyperfd
from nni_hyperfd.method import weights
from nni_hyperfd.platform import EmbeddedPlatform, messages
from nni_hyperfd.server import metrics, operating, pages, problems
from nni_hyperfd.server.auth import Authentication
from nni_hyperfd.server.bodies import LimitedBodies
from nni_hyperfd.server.dependencies import Own
from nni_hyperfd.server.limits import Limits, RateLimited, TimeLimited, check_settings
from nni_hyperfd.server.metrics import Metrics, Observed
from nni_hyperfd.server.versions import OneVersion
from nni_hyperfd.task import Phase, TaskSettings
from nni_hyperfd.wire import Description, ExtractorUpdate

SAFETENSORS = "application/vnd.safetensors"

_TaskId = Annotated[int, Path(ge=1, lt=2**63)]
_TrialId = Annotated[int, Path(ge=1, lt=2**63)]
_ParameterId = Annotated[int, Path(ge=0, lt=2**53)]
_Sha256 = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]
_PROBLEM: dict[int | str, dict[str, Any]] = {
    "default": {"model": messages.Problem, "description": "Refused (RFC 9457)"}
}


def application(platform: EmbeddedPlatform, limits: Limits | None = None) -> FastAPI:
    """The application that serves a platform.

    Args:
        platform: of all tenants.
        limits: of the requests; None for those of `Limits`.
    """
    limits = limits or Limits()
    app = FastAPI(title="HyperFD platform", version=nni_hyperfd.__version__, docs_url=None, redoc_url=None)
    app.state.platform, app.state.metrics = platform, Metrics(platform)
    problems.add_handlers(app)
    # The last one is asked first.
    app.add_middleware(RateLimited, limits=limits)
    app.add_middleware(Authentication, tenants=platform.tenants)
    app.add_middleware(LimitedBodies)
    app.add_middleware(OneVersion)
    app.add_middleware(TimeLimited, limits=limits)
    token = Security(HTTPBearer(auto_error=False))  # for the description of the routes; `Authentication` looks at it
    app.add_middleware(Observed, metrics=app.state.metrics)
    app.include_router(_health, prefix="/health", responses=_PROBLEM)
    app.include_router(operating.health, prefix="/health", responses=_PROBLEM)
    app.include_router(metrics.router)
    app.include_router(pages.router)
    app.include_router(_tasks, prefix="/v1", responses=_PROBLEM, dependencies=[token])
    app.include_router(_service_trials, prefix="/v1", responses=_PROBLEM, dependencies=[token])
    app.include_router(operating.deleting, prefix="/v1", responses=_PROBLEM, dependencies=[token])
    return app


# -- what a supervisor and a load balancer ask -------------------------------------------------------------------------

_health = APIRouter()


@_health.get("/live")
def live() -> dict[str, str]:
    """Whether the process answers."""
    return {"version": nni_hyperfd.__version__}


# -- the way of a task -------------------------------------------------------------------------------------------------

_tasks = APIRouter()


@_tasks.post("/tasks")
def open_task(platform: Own, asked: messages.OpenTask) -> messages.OpenedTask:
    """Begin the task of an experiment, or go on with it."""
    settings = TaskSettings.from_json(asked.settings)
    check_settings(settings)
    return messages.OpenedTask(id=platform.open_task(asked.experiment, asked.space.space(), settings))


@_tasks.get("/tasks/{task_id}")
def task(platform: Own, task_id: _TaskId) -> messages.TaskMessage:
    """A task as it stands now."""
    return messages.TaskMessage.of(platform.task(task_id))


@_tasks.delete("/tasks/{task_id}")
def forget(platform: Own, task_id: _TaskId) -> messages.Forgotten:
    """Remove a task without any result."""
    return messages.Forgotten(removed=platform.forget(task_id))


@_tasks.post("/tasks/{task_id}/next-trial")
def next_trial(platform: Own, task_id: _TaskId) -> messages.NextTrial:
    """The next trial, which is chosen if there is none yet."""
    trial = platform.next_trial(task_id)
    return messages.NextTrial(trial=None if trial is None else messages.TrialMessage.of(trial))


@_tasks.put("/trials/{trial_id}/start", status_code=204)
def start(platform: Own, trial_id: _TrialId, said: messages.Start) -> None:
    """Note that a trial was handed out."""
    platform.start(trial_id, said.parameter_id)


@_tasks.put("/tasks/{task_id}/picks/{parameter_id}", status_code=204)
def take(platform: Own, task_id: _TaskId, parameter_id: _ParameterId, pick: messages.Pick) -> None:
    """Note that a pick of the client's own was handed out, made while the server was away."""
    platform.take(task_id, parameter_id, pick.configuration, pick.rank)


@_tasks.get("/tasks/{task_id}/ranking")
def ranking(platform: Own, task_id: _TaskId) -> messages.RankingMessage:
    """What the client may pick from while the server is away."""
    found = [
        messages.Recommended(configuration=dict(one.configuration), rank=one.rank, score=one.score)
        for one in platform.ranking(task_id)
    ]
    return messages.RankingMessage(recommended=found)


@_tasks.put("/tasks/{task_id}/results/{parameter_id}", status_code=204)
def observe(platform: Own, task_id: _TaskId, parameter_id: _ParameterId, result: messages.Result) -> None:
    """Keep a trial's performance."""
    platform.observe(task_id, parameter_id, result.performance, result.reason)


@_tasks.post("/tasks/{task_id}/experience", status_code=204)
def add_experience(platform: Own, task_id: _TaskId, result: messages.Experience) -> None:
    """Keep a result that comes with its configuration only."""
    platform.add_experience(task_id, result.configuration, result.performance, result.phase)


@_tasks.post("/tasks/{task_id}/settle", status_code=204)
def settle(platform: Own, task_id: _TaskId) -> None:
    """Plan the learn trial, or close the task, if it is time."""
    platform.settle(task_id)


@_tasks.post("/tasks/{task_id}/prepare", status_code=204)
def prepare(platform: Own, task_id: _TaskId) -> None:
    """Learn now what the task's first pick will need."""
    platform.prepare(task_id)


@_tasks.post("/tasks/{task_id}/release", status_code=204)
def release(platform: Own, task_id: _TaskId, said: messages.Release) -> None:
    """Plan anew what does not run any more."""
    platform.release(task_id, set(said.gone))


# -- what extract and learn trials are given and answer ----------------------------------------------------------------

_service_trials = APIRouter()


@_service_trials.get("/tasks/{task_id}/jobs/{phase}")
def job(platform: Own, task_id: _TaskId, phase: Phase) -> messages.JobMessage:
    """What a service trial is to do, with the sha256 of its weights."""
    found = platform.job(task_id, phase)
    if found is None:
        return messages.JobMessage(job=None)
    return messages.JobMessage(job={name: value for name, value in found.pack().items() if name != "tensors"})


@_service_trials.get("/tasks/{task_id}/jobs/{phase}/weights/{sha256}")
def job_weights(platform: Own, task_id: _TaskId, phase: Phase, sha256: _Sha256) -> Response:
    """The weights of a job, as safetensors."""
    found = platform.job(task_id, phase)
    packed = {} if found is None else found.pack()
    if packed.get("sha256") != sha256:
        raise HTTPException(404, "the job has other weights now; ask for the job again")
    return Response(weights.from_text(packed["tensors"]), media_type=SAFETENSORS)


@_service_trials.put("/tasks/{task_id}/descriptions/{parameter_id}", status_code=204)
def describe(platform: Own, task_id: _TaskId, parameter_id: _ParameterId, said: messages.Described) -> None:
    """Keep what the extract trial found out."""
    platform.describe(task_id, parameter_id, Description.unpack(said.description))


@_service_trials.post("/tasks/{task_id}/close", status_code=204)
def close(platform: Own, task_id: _TaskId, said: messages.Close) -> None:
    """Take in the update of the extractor, learn from the task, and close it."""
    platform.close_task(task_id, None if said.update is None else ExtractorUpdate.unpack(said.update))
