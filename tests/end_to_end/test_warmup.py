"""Measuring pairs through real experiments: whatever is killed, no finished pair is lost or measured twice."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable

import pytest

from nni_hyperfd.experiment.launch import free_port
from nni_hyperfd.warmup.pairs import Pair, PairFile
from support.harness import BIN, Experiment
from support.quick_trial import score

pytestmark = pytest.mark.nni


class Collecting:
    """`hyperfd warmup collect` on four sub-data-sets, in the home and with the quick trials of a test's experiment."""

    def __init__(self, experiment: Experiment, pairs: int) -> None:
        self.experiment, self.out, self.pairs = experiment, experiment.folder / "out", pairs
        self.process: subprocess.Popen
        for name in "abcd":
            folder = experiment.folder / "data" / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "train.json").write_text("{}")

    def start(self) -> Collecting:
        self.port = self.experiment.port = free_port()
        options = ["--data", "data", "--out", "out", "--pairs", self.pairs, "--each", 2, "--port", self.port]
        self.process = subprocess.Popen(
            [str(part) for part in (BIN / "hyperfd", "warmup", "collect", "config.yml", *options)],
            cwd=self.experiment.folder, env=self.experiment.environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        return self

    def end(self, expected: int = 0) -> str:
        """What it printed, when it has ended by itself or by a signal."""
        out, err = self.process.communicate(timeout=300)
        assert self.process.returncode == expected, f"{out}{err}"
        assert "Traceback" not in err
        return out + err

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def measured(self) -> list[Pair]:
        return PairFile(self.out / "pairs.sqlite").pairs()

    def wait_status(self, **expected: int) -> None:
        def counted() -> bool:
            file = self.out / "pairs.sqlite"
            counts = Counter(pair.status for pair in self.measured()) if file.exists() else Counter()
            return all(counts[status] == number for status, number in expected.items())

        self.experiment.wait_for(f"pairs {expected}", counted)

    def wait_begun(self, *numbers: int) -> None:
        """Until the trials of these numbers have begun; starting may take NNI several attempts on a busy machine."""
        begun = lambda: set(numbers) <= {entry["number"] for entry in self.experiment.began()}  # noqa: E731
        self.experiment.wait_for(f"the trials {numbers}", begun)

    def identify(self) -> str:
        """The id of the NNI experiment that measures now, which the harness then knows."""
        self.experiment.id = PairFile(self.out / "pairs.sqlite").experiment().experiment
        return self.experiment.id

    def check_results(self) -> None:
        """What is in the file is what trials have found, and none that came to its end was run again."""
        for pair in self.measured():
            if pair.status == "succeeded":
                assert pair.performance == score(pair.configuration)
        ended = [json.dumps(entry["parameters"]) for entry in self.experiment.ran() if entry["event"] == "end"]
        wanted = [json.dumps({"data": p.data, **p.configuration}) for p in self.measured() if p.status == "succeeded"]
        assert sorted(ended) == sorted(wanted)


@pytest.fixture
def collecting(experiment: Callable[..., Experiment]) -> Callable[..., Collecting]:
    def make(trial: str, pairs: int) -> Collecting:
        return Collecting(experiment({}, trial), pairs)

    return make


def test_whatever_is_killed_no_pair_is_lost_or_measured_twice(collecting: Callable[..., Collecting]) -> None:
    killed = collecting("--hook plain --hold {hold}", 6).start()
    nni = killed.experiment
    killed.wait_begun(0, 1)
    first = killed.identify()
    nni.go(0)
    killed.wait_status(succeeded=1, running=2)
    other = Collecting(nni, 6).start()
    assert "out: another process is working on it" in other.end(1)
    nni.port = killed.port

    killed.kill()  # first, as it would take in what the manager knows when it misses the dispatcher
    nni.kill_dispatcher()
    nni.go(1)  # its result reaches the manager, and nobody else
    done = lambda: {job["sequenceId"] for job in nni.trial_jobs() if job["status"] == "SUCCEEDED"} == {0, 1}  # noqa: E731
    nni.wait_for("the end of trial 1", done)
    nni.processes.kill_all()  # as when the machine goes down
    killed.wait_status(succeeded=1, running=2, planned=3)

    killed.start()
    killed.wait_status(succeeded=4, running=2)  # its trials 0 and 1 do not hold
    assert killed.identify() != first
    killed.kill()
    goes_on = f"4 of 6 pairs, 0 of them failed, 2 running; time left unknown; .* at http://localhost:{killed.port}\n"
    killed.start()
    assert re.fullmatch(goes_on, [killed.process.stdout.readline() for _ in range(2)][1])
    nni.go("all")
    assert "6 pairs measured, 0 failed" in killed.end()
    assert len({pair.experiment for pair in killed.measured()}) == 2
    assert [pair.status for pair in killed.measured()] == ["succeeded"] * 6
    killed.check_results()
    assert nni.processes.alive() == []


def test_failures_are_tried_once_more_and_an_interrupt_stops_nni(collecting: Callable[..., Collecting]) -> None:
    stopped = collecting("--hook plain --crash 0 4 --hold {hold}", 4).start()
    stopped.wait_begun(1, 2)
    stopped.process.terminate()  # as Ctrl-C, which a test that runs in the background could not send
    assert "stopped; the same command goes on" in stopped.end(1)
    assert stopped.experiment.processes.alive() == []
    assert [(pair.status, pair.failures) for pair in stopped.measured()] == [("planned", 1), *[("planned", 0)] * 3]

    stopped.experiment.go("all")
    assert "3 pairs measured, 1 failed" in stopped.start().end()
    # In the last experiment trial 0 was the second pair's first one, and 4 its second one: tried pairs come last.
    assert [pair.status for pair in stopped.measured()] == ["succeeded", "failed", "succeeded", "succeeded"]
    assert [pair.failures for pair in stopped.measured()] == [1, 2, 0, 0]
    assert "trial" in stopped.measured()[1].reason and stopped.measured()[1].performance is None
    stopped.check_results()


@pytest.mark.long
def test_trials_that_do_nothing_but_fail_use_no_pair_up(collecting: Callable[..., Collecting]) -> None:
    hopeless = collecting("", 4)
    hopeless.experiment.configure(trialCommand="false")
    assert re.search(r"the first [5-9] trials have all failed, one of them with: trial", hopeless.start().end(1))
    assert {(pair.status, pair.failures) for pair in hopeless.measured()} == {("planned", 0)}
    assert hopeless.experiment.processes.alive() == []
