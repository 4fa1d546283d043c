"""An NNI experiment whose platform is a server that is killed in its middle, and comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra `server` is not installed")

from nni_hyperfd import wire
from nni_hyperfd.task import Status
from support.harness import Experiment
from support.serving import Server

pytestmark = pytest.mark.nni
BUDGET = 3


def test_trials_go_on_and_nothing_is_lost(
    experiment: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(tmp_path / "state.sqlite", log=tmp_path / "server.log")
    token = tmp_path / "token"
    token.write_text(server.token)
    token.chmod(0o600)
    class_args = {"platform": server.address, "token_file": str(token), "when_away": "continue", "budget": BUDGET}
    own = {"state": None, "warm_start": None}
    away = experiment(class_args | own, "--hold {hold}", state=tmp_path / "state.sqlite", trialConcurrency=1)
    try:
        server.start()
        away.create()
        away.wait_event("begin", 1)
        server.kill()
        away.go(1)
        away.wait_event("begin", 2)  # a trial of the last ranking
        assert away.status() == "RUNNING"
        second = away.trial_jobs()[2]["record"]["parameters"]
        assert second.pop("phase") == wire.WITHOUT_PLATFORM, "what NNI's web UI shows"
        assert [entry["parameters"] for entry in away.began() if entry["number"] == 2] == [second]
        outbox = away.home / ".local/share/nni_hyperfd/outbox" / f"{away.id}.sqlite"
        away.wait_for("what is kept", outbox.exists)
        assert [trial.status for trial in away.task().trials] == [Status.SUCCEEDED, Status.RUNNING]
        server.start()
        away.go("all")
        away.wait_done()
        task = away.task()
        assert task.closed is not None and [trial.status for trial in task.trials] == [Status.SUCCEEDED] * (1 + BUDGET)
        assert len({str(pick.configuration) for pick in away.picks()}) == BUDGET
        ended = {str(entry["parameters"]): entry["number"] for entry in away.ran() if entry["event"] == "end"}
        assert len(ended) == BUDGET, "nothing ran twice"
        away.check_same_everywhere()
        assert not outbox.exists()
        assert "The platform is away" in away.log("dispatcher") and "The platform is back" in away.log("dispatcher")
        check_token_is_nowhere(server.token, away.folder / "nni-experiments", tmp_path / "server.log")
    finally:
        server.kill()


def check_token_is_nowhere(token: str, *places: Path) -> None:
    """Not in NNI's records, its logs, those of the trials, or the server's."""
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("*")) if file.is_file()]
    assert len(files) > 5
    assert [file for file in files if token.encode() in file.read_bytes()] == []
