"""The command line of the load benchmark.

    python -m nni_hyperfd.benchmark.load many [--clients 100] [--tasks 2] [--past 1000] [--sqlite]
    python -m nni_hyperfd.benchmark.load kills [--kills 200] [--clients 16]

The past tasks are made up as in `nni_hyperfd.benchmark.state`, and so are the clients' data sets and results.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select

from nni_hyperfd.benchmark import state
from nni_hyperfd.benchmark.load import clients, cluster
from nni_hyperfd.benchmark.load.services import DatabaseServer, Program, Service, free_port, hyperfd
from nni_hyperfd.platform import Platform
from nni_hyperfd.state.store import Store
from nni_hyperfd.state.tables import TaskRow, TrialRow
from nni_hyperfd.state.tenants import Tenants

TENANTS = 10
_LONGEST_PAUSE = 2.0
"""Maximum number of seconds between a start and the next kill."""

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
_Clients = Annotated[int, typer.Option(min=1, help="Data owners at the same time.")]
_Past = Annotated[int, typer.Option(min=state.LIVED, help="Tasks that the platform knows at the beginning.")]


@dataclass(frozen=True)
class Running:
    """A platform for many that runs.

    Attributes:
        database: its address.
        address: of its server.
        tokens: of its tenants.
        services: by their names.
    """

    database: str
    address: str
    tokens: list[str]
    services: dict[str, Service]


@app.command()
def many(
    number: Annotated[int, typer.Option("--clients", min=1, help="Data owners at the same time.")] = 100,
    tasks: Annotated[int, typer.Option(min=1, help="Tasks of each, one after another.")] = 2,
    past: _Past = state.LIVED,
    sqlite: Annotated[bool, typer.Option("--sqlite", help="A state file in place of PostgreSQL.")] = False,
) -> None:
    """Let many clients lead whole tasks at the same time, and time every route."""
    with running(past, sqlite) as platform:
        begin = time.perf_counter()
        record = clients.run(platform.address, platform.tokens, state.SPACE, number, lambda n: n < tasks, seed=0)
        seconds = time.perf_counter() - begin
        counted = count(platform.database, record)
    table = Table("route", "answers", "p50 (ms)", "p95 (ms)", "p99 (ms)")
    for route, times in sorted(record.seconds.items()):
        table.add_row(route, str(len(times)), *(f"{1000 * q:.0f}" for q in np.quantile(times, (0.5, 0.95, 0.99))))
    Console().print(table)
    Console().print(f"{number * tasks / seconds * 60:.0f} tasks a minute; {counted}")


@app.command()
def kills(
    times: Annotated[int, typer.Option("--kills", min=1, help="How many processes are killed.")] = 200,
    number: Annotated[int, typer.Option("--clients", min=1, help="Data owners at the same time.")] = 16,
    past: _Past = state.LIVED,
    seed: Annotated[int, typer.Option(help="Of what is killed when.")] = 0,
) -> None:
    """Kill server, worker and database at random moments while clients lead tasks, and count what was lost."""
    rng, ended = np.random.default_rng(seed), threading.Event()
    outages: dict[str, list[float]] = defaultdict(list)
    with running(past, sqlite=False) as platform:

        def kill() -> None:
            try:
                for _ in range(times):
                    ended.wait(rng.uniform(0, _LONGEST_PAUSE))
                    name = str(rng.choice(list(platform.services)))
                    begin = time.perf_counter()
                    platform.services[name].kill()
                    platform.services[name].start()
                    outages[name].append(time.perf_counter() - begin)
            finally:
                ended.set()

        killer = threading.Thread(target=kill)
        killer.start()
        record = clients.run(
            platform.address, platform.tokens, state.SPACE, number, lambda _: not ended.is_set(), seed=1 + seed
        )
        killer.join()
        counted = count(platform.database, record)
    table = Table("process", "kills", "median until it is back (s)", "longest (s)")
    for name, seconds in outages.items():
        table.add_row(name, str(len(seconds)), f"{np.median(seconds):.1f}", f"{max(seconds):.1f}")
    Console().print(table)
    Console().print(
        f"longest wait of a client for an answer: {max(map(max, record.seconds.values())):.1f} s; {counted}"
    )


@contextmanager
def running(past: int, sqlite: bool) -> Iterator[Running]:
    """Start a platform that knows past tasks; everything ends with the block."""
    with TemporaryDirectory() as folder, ExitStack() as ending:
        file = Path(folder) / "state.sqlite"
        grown = Platform(file)
        state.add_offline_sets(grown)
        state.grow(grown, past)
        grown.store.close()
        database, services = str(file), dict[str, Service]()
        if not sqlite:
            if reason := cluster.missing():
                raise typer.BadParameter(reason)
            made = ending.enter_context(cluster.cluster())
            database = made.new_database()
            subprocess.run(hyperfd("db", "copy", str(file), database), check=True)
            services["database"] = DatabaseServer(made)
            services["worker"] = Program(["worker", "--database", database])
        address = f"http://127.0.0.1:{(port := free_port())}"
        services["server"] = Program(["serve", "--database", database, "--port", str(port)], address)
        tokens = _tokens(database)
        for name, service in services.items():
            if name != "database":
                service.start()
                ending.callback(service.kill)
        yield Running(database, address, tokens, services)


def count(database: str, record: clients.Record) -> str:
    """What the database has of all that was acknowledged."""
    store = Store(database)
    with store.read() as session:
        rows = session.execute(
            select(TrialRow.task_id, TrialRow.parameter_id, TrialRow.performance)
            .join(TaskRow)
            .where(TaskRow.tenant_id.is_not(None), TrialRow.is_result)
        ).all()
        tasks = session.scalar(select(func.count()).where(TaskRow.tenant_id.is_not(None)))
        closed = session.scalar(select(func.count()).where(TaskRow.tenant_id.is_not(None), TaskRow.closed.is_not(None)))
    store.close()
    kept = {(task_id, parameter_id): performance for task_id, parameter_id, performance in rows}
    told = [(task_id, *one) for task_id, results in record.results.items() for one in results.items()]
    lost = sum(kept.get((task_id, parameter_id)) != performance for task_id, parameter_id, performance in told)
    doubled = sum(max(0, results - clients.BUDGET) for results in Counter(task_id for task_id, *_ in rows).values())
    doubled += (tasks or 0) - len(record.results)
    return (
        f"{len(told)} results acknowledged in {len(record.results)} tasks, {lost} lost, {doubled} doubled; "
        f"{closed} of {tasks} tasks closed"
    )


def _tokens(database: str) -> list[str]:
    """Add tenants without quotas, and return their tokens."""
    store = Store(database)
    tenants = Tenants(store)
    tokens = [tenants.add(f"tenant-{number}", open_tasks=0, tasks_a_day=0) for number in range(TENANTS)]
    store.close()
    return tokens


if __name__ == "__main__":
    app()
