"""The load benchmark at a small size: what it counts is there, and what is lost or doubled it finds."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="the extra `server` is not installed")
from sqlalchemy import delete, select
from typer.testing import CliRunner

from nni_hyperfd.benchmark import state
from nni_hyperfd.benchmark.load import clients
from nni_hyperfd.benchmark.load.__main__ import app, count, running
from nni_hyperfd.state.store import Store
from nni_hyperfd.state.tables import TrialRow


@pytest.mark.slow
def test_what_clients_were_told_is_compared_with_the_database():
    with running(past=state.LIVED, sqlite=True) as platform:
        record = clients.run(platform.address, platform.tokens, state.SPACE, 2, lambda n: n < 1, seed=0)
        assert count(platform.database, record).startswith("8 results acknowledged in 2 tasks, 0 lost, 0 doubled; 2 of")
        assert len(record.seconds["POST /tasks/{id}/next-trial"]) == 2 * (1 + clients.BUDGET)
        store = Store(platform.database)
        with store.write() as session:
            task_id, parameter_id = next((task_id, next(iter(r))) for task_id, r in record.results.items())
            known = (TrialRow.task_id == task_id) & (TrialRow.parameter_id == parameter_id)
            trial = session.scalars(select(TrialRow).where(known)).one()
            for _ in range(2):
                session.add(state.copied(trial, parameter_id=None))
            session.execute(delete(TrialRow).where(known))
        store.close()
        assert "8 results acknowledged in 2 tasks, 1 lost, 1 doubled" in count(platform.database, record)


@pytest.mark.slow
def test_a_server_and_its_database_are_killed_and_nothing_is_lost(cluster):
    told = CliRunner().invoke(app, ["kills", "--kills", "3", "--clients", "2", "--seed", "1"])
    assert told.exit_code == 0, told.output
    said = " ".join(told.output.split())
    assert "0 lost, 0 doubled" in said and "longest wait" in said
