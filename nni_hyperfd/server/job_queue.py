"""The queue and the workers of a state in PostgreSQL: Procrastinate, in a schema of its own beside the state's tables.

Its jobs only name search spaces; what is to be learned of them is read from the state. So nothing is lost with a job.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import signal
from threading import Event
from typing import Any

from procrastinate import App, PsycopgConnector, SyncPsycopgConnector
from procrastinate.connector import BaseConnector
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
from procrastinate.jobs import Status
from procrastinate.schema import SchemaManager
from psycopg.conninfo import make_conninfo
from sqlalchemy import make_url

from nni_hyperfd.platform import Platform
from nni_hyperfd.server.chores import Chores, Pace
from nni_hyperfd.state.store import Store

_logger = logging.getLogger(__name__)

SCHEMA = f"hyperfd_queue_{hashlib.sha256(SchemaManager.get_schema().encode()).hexdigest()[:8]}"
"""A new version of Procrastinate's tables gets a schema of its own, so that nothing has to be migrated."""
_LEARN = "learn"  # the name of the task and of its queue
_AWAY_SECONDS = 2.0  # until a worker tries again that has lost the database
_POOL: dict[str, Any] = {"min_size": 1, "max_size": 4, "timeout": 5.0}


def make_tables(store: Store) -> None:
    """Make the queue's tables in the state's database, unless they are there.

    Raises:
        StateError: they cannot be made.
    """
    # Many statements at once: they are not to be taken for one with parameters.
    engine = store.engine.execution_options(no_parameters=True)
    with store.database.readable_errors("write"), engine.begin() as connection:
        if connection.exec_driver_sql(f"SELECT to_regclass('{SCHEMA}.procrastinate_jobs')").scalar_one() is None:
            connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            connection.exec_driver_sql(f"SET LOCAL search_path TO {SCHEMA}")
            connection.exec_driver_sql(SchemaManager.get_schema())


def connection_info(address: str) -> str:
    """The connection string of libpq for an address of SQLAlchemy, with nothing but the queue's tables in sight."""
    url = make_url(address)
    _, options = url.get_dialect()().create_connect_args(url)
    given = f"{options.pop('options', '')} -c search_path={SCHEMA}"
    return make_conninfo(**options, options=given.strip())


class JobQueue:
    """Tells the workers of a database what to learn.

    Args:
        address: of the database.
    """

    def __init__(self, address: str) -> None:
        self._app = App(connector=SyncPsycopgConnector(conninfo=connection_info(address), **_POOL))

    def begin(self, store: Store) -> None:
        """Connect, to tables that are made unless they are there; before it, nothing can be told."""
        make_tables(store)
        self._app.open()

    def put(self, space_signature: str) -> None:
        """Defer a job, unless one waits for this space already."""
        try:
            self._app.configure_task(**_job(space_signature)).defer(space_signature=space_signature)
        except AlreadyEnqueued:
            pass
        except ConnectorException as error:
            _logger.warning("No job was deferred (%s); a worker will see what there is to learn.", error.__cause__)

    def end(self) -> None:
        """Close its connections."""
        self._app.close()


def work(platform: Platform, address: str, pace: Pace) -> None:
    """Work until SIGTERM or SIGINT, and end then after the task that is learned from.

    Args:
        platform: where it learns, within the call.
        address: of its database.
        pace: how often it looks, and how long it waits for other workers.
    """
    make_tables(platform.store)
    asyncio.run(_Worker(platform, address, pace).run())


def _job(space_signature: str) -> dict[str, Any]:
    """One waiting job for a space is enough, and one runs at a time."""
    return {"name": _LEARN, "queue": _LEARN, "lock": space_signature, "queueing_lock": space_signature}


class _Worker:
    """One worker process."""

    def __init__(self, platform: Platform, address: str, pace: Pace) -> None:
        self._stop, self._stopping = asyncio.Event(), Event()
        self._chores, self._pace = Chores(platform, pace, self._stopping), pace
        connector: BaseConnector = PsycopgConnector(conninfo=connection_info(address), **_POOL)
        self._app = App(connector=connector)
        self._app.task(name=_LEARN, queue=_LEARN)(self._chores.learn)

    async def run(self) -> None:
        """Work; a database that is away is waited for."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._end)
        while not self._stop.is_set():
            try:
                async with self._app.open_async():
                    await self._until_something_ends()
            except Exception as error:
                _logger.error("The worker tries again in %g s: %s", _AWAY_SECONDS, error.__cause__ or error)
            if not self._stop.is_set():
                await self._stopped_within(_AWAY_SECONDS)

    def _end(self) -> None:
        self._stopping.set()
        self._stop.set()

    async def _until_something_ends(self) -> None:
        """Take jobs and look around, until one of both fails or the worker is to stop."""
        jobs = self._app.run_worker_async(
            queues=[_LEARN],
            install_signal_handlers=False,
            delete_jobs="always",
            update_heartbeat_interval=self._pace.heartbeat,
            stalled_worker_timeout=self._pace.stalled,
        )
        tasks = [asyncio.create_task(each) for each in (jobs, self._look_around(), self._stop.wait())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    async def _look_around(self) -> None:
        """Now and then: end the jobs of workers that are gone, and defer one for each space that has none."""
        while not self._stop.is_set():
            stalled = await self._app.job_manager.get_stalled_jobs(seconds_since_heartbeat=self._pace.stalled)
            for job in stalled:
                _logger.warning("A worker is gone; what it was learning is learned by another.")
                await self._finish(job.id)
            for space_signature in await asyncio.to_thread(self._chores.due):
                try:
                    await self._app.configure_task(**_job(space_signature)).defer_async(space_signature=space_signature)
                except AlreadyEnqueued:
                    pass
            await self._stopped_within(self._pace.every)

    async def _finish(self, job_id: int | None) -> None:
        try:
            await self._app.job_manager.finish_job_by_id_async(job_id or 0, Status.FAILED, delete_job=True)
        except ConnectorException:
            pass  # another worker has done so

    async def _stopped_within(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except asyncio.TimeoutError:
            pass
