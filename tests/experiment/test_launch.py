"""What starting an experiment needs no NNI for; tests/end_to_end/test_busy_machine.py starts real ones."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from nni_hyperfd.experiment import launch


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_interrupts_and_the_second_one_does_not_interrupt_what_follows(number: int, code: int) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    stopped = False
    with pytest.raises(launch.Interrupted) as interrupted:
        with launch.interruptible():
            try:
                os.kill(os.getpid(), number)
                signal.sigtimedwait([], 5)
            finally:
                os.kill(os.getpid(), number)
                stopped = True
    assert stopped and interrupted.value.exit_code == code
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_port_in_use_is_refused_at_once() -> None:
    from nni.experiment import ExperimentConfig

    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(launch.LaunchError, match=f"port {port} is in use; .* name another port"):
            launch.start(ExperimentConfig("local"), port)


def test_an_experiment_that_does_not_run_is_not_found(tmp_path: Path) -> None:
    assert launch.find("no-such-experiment", 8080, tmp_path) is None
