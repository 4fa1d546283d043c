"""Real NNI experiments for tests: nnictl, manager, dispatcher and trials, each in a home folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil
import requests
import yaml

from nni_hyperfd import Platform
from nni_hyperfd.platform import TaskView, TrialView
from nni_hyperfd.task import Phase
from support import SUPPORT, TESTS
from support.processes import Marked, is_dispatcher, kill

T = TypeVar("T")

BIN = Path(sys.executable).parent
SPACE = {
    "x": {"_type": "choice", "_value": [0, 1, 2, 3, 4]},
    "kind": {"_type": "choice", "_value": ["a", "b", "c"]},
}


class Experiment:
    """One NNI experiment of quick trials.

    Args:
        folder: made for this experiment; its home, its files and what its trials note down lie here.
        class_args: of the tuner.
        trial: arguments of quick_trial.py; ``{hold}`` stands for the folder that `go` writes to.
        state: the state file; by default one in the experiment's own home.
        prefix: command before the trial's.
        config: entries of the configuration file that differ from the default.
    """

    def __init__(
        self,
        folder: Path,
        class_args: dict[str, Any],
        trial: str = "",
        *,
        state: Path | None = None,
        space: Any = None,
        prefix: str = "",
        **config: Any,
    ) -> None:
        self.folder, self.home, self.state = folder, folder / "home", state or folder / "state.sqlite"
        self.home.mkdir(parents=True)
        self.ran_file = folder / "ran.jsonl"
        self.hold = folder / "go"
        self.hold.mkdir()
        self.id = self.port = None
        self.processes = Marked()
        (folder / "space.json").write_text(json.dumps(SPACE if space is None else space))
        command = f"{sys.executable} quick_trial.py --ran {self.ran_file} {trial.format(hold=self.hold)}"
        tuner = {"codeDirectory": str(folder), "className": "nni_hyperfd.HyperFDAdvisor"}
        content = {
            "experimentName": folder.name,
            "experimentWorkingDirectory": str(folder / "nni-experiments"),
            "searchSpaceFile": "space.json",
            "trialCommand": f"{prefix} {command}".strip(),
            "trialCodeDirectory": str(SUPPORT),
            "trialConcurrency": 2,
            "maxExperimentDuration": "10m",
            "tuner": tuner | {"classArgs": {"state": str(self.state), "warm_start": "none", **class_args}},
            "trainingService": {"platform": "local"},
        }
        self.config = content
        self.configure(**config)

    def configure(self, **config: Any) -> None:
        """Change entries of the configuration file."""
        self.config |= config
        (self.folder / "config.yml").write_text(yaml.safe_dump(self.config))

    # -- its life ------------------------------------------------------------------------------------------------------

    def create(self) -> Experiment:
        self._start("create", "config.yml")
        return self

    def resume(self) -> Experiment:
        self._start("resume", str(self.id))
        return self

    def _start(self, action: str, what: str) -> None:
        output = self.run(sys.executable, SUPPORT / "start.py", action, what)
        (answer,) = [line for line in output.splitlines() if line.startswith("{")]
        self.id, self.port = json.loads(answer).values()

    def stop(self) -> None:
        self.nnictl("stop", self.id)

    def end(self) -> None:
        """End every process that is left, first as `nnictl stop` does (but without the seconds it takes to start)."""
        managers = self.processes.managers()
        for process in managers:
            process.terminate()
        psutil.wait_procs(managers, timeout=20)
        self.processes.kill_all()

    def nnictl(self, *arguments: str, check: bool = True) -> str:
        """What `nnictl` printed."""
        return self.run(BIN / "nnictl", *arguments, check=check)

    def run(self, *command: str | Path, check: bool = True) -> str:
        """Run a command in the experiment's folder and environment."""
        done = subprocess.run(
            [str(part) for part in command],
            cwd=self.folder, env=self.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=900,
        )  # fmt: skip
        output = done.stdout + done.stderr
        if check and done.returncode:
            raise AssertionError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{output}")
        return output

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("NNI_", "XDG_", "PYTEST_"))}
        path = os.pathsep.join([str(BIN), os.environ["PATH"]])
        own = {"HOME": str(self.home), "NNI_CONFIG_DIR": str(self.home / "nni-config"), **self.processes.environment}
        imports = os.pathsep.join(
            filter(None, [str(TESTS), os.environ.get("PYTHONPATH")])
        )  # of this package, by trials
        return kept | own | {"PATH": path, "PYTHONPATH": imports, "OMP_NUM_THREADS": "1"}

    # -- its processes -------------------------------------------------------------------------------------------------

    def kill_manager(self) -> None:
        self._kill_one(self.processes.managers())

    def kill_dispatcher(self) -> None:
        self._kill_one([process for process in self.processes.alive() if is_dispatcher(process)])

    @staticmethod
    def _kill_one(found: list[psutil.Process]) -> None:
        assert len(found) == 1, found
        kill(found[0])

    # -- what it says --------------------------------------------------------------------------------------------------

    def rest(self, path: str) -> Any:
        response = requests.get(f"http://localhost:{self.port}/api/v1/nni{path}", timeout=20)
        response.raise_for_status()
        return response.json()

    def status(self) -> str:
        return self.rest("/check-status")["status"]

    def errors(self) -> list[str]:
        return self.rest("/check-status")["errors"]

    def trial_jobs(self) -> list[dict[str, Any]]:
        """NNI's records, which the web UI shows, by trial number. Parsed: ``record`` and ``final`` (or None)."""
        jobs = sorted(self.rest("/trial-jobs"), key=lambda job: job["sequenceId"])
        for job in jobs:
            job["record"] = json.loads(job["hyperParameters"][0])
            final = job.get("finalMetricData")
            job["final"] = json.loads(json.loads(final[0]["data"])) if final else None
        return jobs

    def ran(self) -> list[dict[str, Any]]:
        """What the trials really did, as they noted it: ``trial``, ``number``, ``event`` (begin, end, service),
        ``parameters``, ``time``."""
        return [json.loads(line) for line in self.ran_file.read_text().splitlines()] if self.ran_file.exists() else []

    def began(self) -> list[dict[str, Any]]:
        return [entry for entry in self.ran() if entry["event"] == "begin"]

    def task(self) -> TaskView:
        """This experiment's task, as it stands in the state."""
        return next(task for task in Platform(self.state).tasks() if task.experiment == self.id)

    def picks(self) -> list[TrialView]:
        """The trials of the budget, in the order in which they were started."""
        return sorted((t for t in self.task().trials if t.phase is Phase.FINE_TUNE), key=lambda t: t.parameter_id)

    def check_same_everywhere(self) -> None:
        """NNI's records (which the web UI shows), the trials' own notes and our state agree on who ran what."""
        jobs = self.trial_jobs()
        rows = {trial.parameter_id: trial for trial in self.task().trials}
        ran = {entry["trial"]: entry["parameters"] for entry in self.began()}
        ids = [job["record"]["parameter_id"] for job in jobs]
        assert len(set(ids)) == len(ids), f"a parameter id was used twice: {ids}"
        for job in jobs:
            shown = {k: v for k, v in job["record"]["parameters"].items() if k != "phase"}
            if job["trialJobId"] in ran:
                did = {k: v for k, v in ran[job["trialJobId"]].items() if k != "phase"}
                assert did == shown, f"trial {job['trialJobId']} ran {did}, NNI shows {shown}"
            if job["record"]["parameter_id"] in rows:
                assert rows[job["record"]["parameter_id"]].configuration == shown

    def log(self, name: str) -> str:
        path = self.folder / "nni-experiments" / str(self.id) / "log" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def tails(self) -> str:
        """The ends of all logs, for the message of a failed test."""
        texts = {name: self.log(name) for name in ("nnimanager", "dispatcher", "nnictl_stderr")}
        trials = self.folder / "nni-experiments" / str(self.id) / "environments" / "local-env" / "trials"
        texts |= {path.relative_to(trials): path.read_text(errors="replace") for path in trials.glob("*/trial.stderr")}
        return "\n".join(f"--- {name} ---\n{text[-2500:]}" for name, text in texts.items() if text)

    # -- waiting -------------------------------------------------------------------------------------------------------

    def wait_for(self, what: str, condition: Callable[[], T], seconds: float = 240) -> T:
        """The first true value of the condition; a manager that does not answer counts as false."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if value := condition():
                    return value
            except requests.RequestException:
                pass
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {seconds} s\n{self.tails()}")
            time.sleep(0.2)

    def wait_done(self, seconds: float = 400) -> Experiment:
        def ended() -> bool:
            answer = self.rest("/check-status")
            assert answer["status"] != "ERROR", f"the experiment ended with {answer['errors']}\n{self.tails()}"
            return answer["status"] == "DONE"

        self.wait_for("status DONE", ended, seconds)
        return self

    def wait_event(self, event: str, *numbers: int) -> None:
        """Until the trials of these numbers have noted the event."""
        noted = lambda: {e["number"] for e in self.ran() if e["event"] == event}  # noqa: E731
        self.wait_for(f"the event {event!r} of the trials {numbers}", lambda: set(numbers) <= noted())

    def go(self, *numbers: int | str) -> None:
        """Let trials that hold (``--hold {hold}``) go on: the named ones, or ``"all"``."""
        for number in numbers:
            (self.hold / str(number)).touch()


def before(experiment: Experiment) -> Path:
    """Where a fixture keeps a copy of the state from before the experiment."""
    return experiment.folder / "before.sqlite"
