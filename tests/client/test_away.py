"""A client whose server goes away and comes back: what it has to tell is neither lost nor told twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("fastapi", reason="the extra `server` is not installed")

from nni_hyperfd import wire
from nni_hyperfd.client import PatientPlatform
from nni_hyperfd.client.outbox import Call, Outbox
from nni_hyperfd.platform import HeldError, StateError
from nni_hyperfd.task import Phase, Status
from nni_hyperfd.wire import Description
from support.platform_contract import described, opened, run_next
from support.serving import Forgetful, Server

PICKS = 4


def back(client, task_id, seconds=60):
    """The task, once the server has heard of everything."""
    deadline = time.monotonic() + seconds
    while client.away is not None:
        assert time.monotonic() < deadline, "the client does not come back"
        time.sleep(client.away)
        client.task(task_id)
    return client.task(task_id)


@pytest.fixture
def away(tmp_path, monkeypatch):
    """A server that was never started, and a client that will find it."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    serving = Server(tmp_path / "state.sqlite")
    monkeypatch.setenv("HYPERFD_TOKEN", serving.token)
    yield serving
    serving.kill()


@pytest.fixture
def running(away):
    return away.start()


@pytest.mark.slow
def test_a_server_that_is_killed_at_each_step_of_a_task(running, lab, caplog, monkeypatch):
    """The tuner as the advisor drives it; every step is taken while nobody listens, and again the server is killed."""
    tuner = lab.tuner(
        "e", state=None, warm_start=None, platform=running.address, when_away="continue", budget=PICKS, preset="default"
    )
    task_id, platform = tuner.task_id, tuner.platform
    request = tuner.ask(0)
    assert request.job is not None
    running.kill()
    (answer,), (final,) = lab.serve(request)
    monkeypatch.setenv("HYPERFD_TOKEN", running.token)  # the trial, here in the tuner's process, has taken it away
    tuner.receive_intermediate(0, answer)
    tuner.receive_trial_result(0, None, final)
    tuner.trial_end(0, True)
    assert platform.task(task_id).meta_feature is not None, "as it will be"
    assert tuner.ask(1) is None, "there is no ranking yet, and the job of no trial is known"
    running.start()
    assert back(platform, task_id).trials[0].status is Status.SUCCEEDED

    marks = []
    for parameter_id in range(1, PICKS + 1):
        request = tuner.ask(parameter_id)
        marks.append(request.note)
        if parameter_id % 2 == 0:
            running.kill()
        tuner.receive_trial_result(parameter_id, None, {"default": lab.score(request.configuration)})
        tuner.trial_end(parameter_id, True)
        assert not tuner.done
        if parameter_id > 2:  # the third pick is one without the server
            running.kill()
            running.start()
            back(platform, task_id)
    assert marks == [None, None, wire.WITHOUT_PLATFORM, None]
    assert "The platform is away" in caplog.text and "The platform is back" in caplog.text
    assert running.token not in caplog.text
    task = platform.task(task_id)
    assert task.closed is not None and tuner.done and tuner.ask(9) is None
    picks = task.trials[1:]
    assert [(t.parameter_id, t.phase, t.status) for t in picks] == [
        (number, Phase.FINE_TUNE, Status.SUCCEEDED) for number in range(1, PICKS + 1)
    ]
    assert [t.performance for t in picks] == [lab.score(t.configuration) for t in picks]
    assert len({str(t.configuration) for t in picks}) == PICKS and all(t.rank for t in picks)
    assert not platform._outbox.file.exists(), "nothing is left behind"


def test_lost_answers_neither_lose_nor_double(running, monkeypatch):
    """The server hears every second request, and the client does not hear of it."""
    way = Forgetful(running.port)
    client = PatientPlatform(way.address, continues=True)
    task_id = described(client, budget=3)
    for number in (1, 2, 3):
        trial = run_next(client, task_id, number)
        client.observe(task_id, number, trial.configuration["x"] / 20)
        client.settle(task_id)
    task = back(client, task_id)
    assert way.lost > 10
    assert task.closed is not None and task.meta_feature == (0.5,) * 64
    picks = [trial for trial in task.trials if trial.tries]
    assert [(t.parameter_id, t.performance) for t in picks] == [
        (number, t.configuration["x"] / 20) for number, t in zip((1, 2, 3), picks, strict=True)
    ]
    client.close()
    way.close()


KILLED = """
    import os, signal
    from nni_hyperfd.client import PatientPlatform
    from support.platform_contract import opened, run_next
    from nni_hyperfd.wire import Description
    client = PatientPlatform(os.environ["ADDRESS"], continues=True)
    task_id = opened(client, budget=3)
    run_next(client, task_id, 0)
    client.describe(task_id, 0, Description([0.5] * 64, 20, 30, 0.25, among=1))
    first = run_next(client, task_id, 1)
    os.kill(int(os.environ["SERVER"]), signal.SIGKILL)
    client.observe(task_id, 1, 0.5)
    second = client.next_trial(task_id)
    assert second.id < 0, second
    client.start(second.id, 2)
    client.observe(task_id, 2, 0.75)
    third = run_next(client, task_id, 3)
    assert client.next_trial(task_id) is None, "the budget is spent"
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_what_a_killed_client_has_kept_is_told_by_the_next_one(running):
    import textwrap

    environment = os.environ | {"ADDRESS": running.address, "SERVER": str(running.pid)}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED)], env=environment)
    assert killed.returncode == -signal.SIGKILL
    kept = Outbox.of("e")
    assert len(kept) == 4 and kept.file.stat().st_mode & 0o077 == 0
    running.kill()
    running.start()
    client = PatientPlatform(running.address)
    task_id = opened(client, budget=3)
    task = client.task(task_id)
    assert [(t.parameter_id, t.status, t.performance) for t in task.trials[1:]] == [
        (1, Status.SUCCEEDED, 0.5),
        (2, Status.SUCCEEDED, 0.75),
        (3, Status.RUNNING, None),
    ]
    assert not kept and len({t.configuration["x"] for t in task.trials[1:]}) == 3
    client.close()


def test_what_the_server_refuses_late_is_taken_out_and_said(running, caplog):
    client = PatientPlatform(running.address)
    task_id = opened(client)
    run_next(client, task_id, 0)
    client._went_away(StateError("for the test"))
    client._again += 3600
    client.describe(task_id, 0, Description([0.5] * 64, 20, 30, 0.25, extractor="0" * 64))
    client._outbox.add(Call("PUT", f"tasks/{task_id}/results/x", '{"performance": 0.5}'))
    client.observe(task_id, 7, 0.5)  # of a trial that is not known
    assert client.task(task_id).trials[0].status is Status.SUCCEEDED, "as it would have been"
    client._again = 0.0
    (trial,) = client.task(task_id).trials
    assert trial.status is Status.FAILED and "extractor that this state does not have" in trial.reason
    assert not client._outbox and client.away is None
    assert "refuses what it was told late" in caplog.text and "results/x" in caplog.text
    client.close()


def test_of_two_processes_with_one_experiment_the_older_one_ends(running):
    older, newer = PatientPlatform(running.address), PatientPlatform(running.address)
    task_id = opened(older)
    assert opened(newer) == task_id
    with pytest.raises(HeldError, match="a newer advisor has taken over experiment e"):
        older.observe(task_id, 0, 0.5)
    for client in (older, newer):
        client.close()


def test_a_server_that_is_away_at_the_start_is_waited_for(away):
    client = PatientPlatform(away.address, start_seconds=0.5)
    with pytest.raises(StateError, match="it cannot be reached.*; it was waited for 0.5 s"):
        opened(client)
    client.close()
