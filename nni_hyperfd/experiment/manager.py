"""REST calls to the NNI manager that neither a tuner's nor a trial's command channel offers."""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import requests

_TIMEOUT_SECONDS = 20


class ExperimentStatus(NamedTuple):
    """What NNI says about an experiment.

    Attributes:
        name: NNI's word for it: ``"RUNNING"``, ``"DONE"``, ``"ERROR"``, ...
        errors: messages of what went wrong; the web UI shows the first one.
    """

    name: str
    errors: list[str]


class Manager:
    """The NNI manager behind a command channel or a web UI.

    Every method raises an ``OSError`` (``requests.RequestException``) when the manager does not answer, answers with an
    error, or is still starting.

    Args:
        address: the tuner's command channel (``ws://host:port[/prefix]/tuner``) or a trial's
            (``http://host:port[/prefix]/env/...``), as NNI puts it into the environment; that of a keeper of trials on
            another machine (``ws://host:port[/prefix]/platform/...``), as NNI's settings there name it; or the address
            of the web UI (``http://host:port[/prefix]``).
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        prefix = parts.path.removesuffix("/tuner").split("/env/")[0].split("/platform/")[0].rstrip("/")
        self._api = f"http://{parts.netloc}{prefix}/api/v1/nni"

    def status(self) -> ExperimentStatus:
        """Return the experiment's status."""
        answer = self._get("/check-status")
        return ExperimentStatus(answer["status"], answer["errors"])

    def experiment(self) -> dict[str, Any]:
        """Return the experiment's profile: ``id``, ``params`` (the configuration), ..."""
        return cast(dict[str, Any], self._get("/experiment"))

    def trial_jobs(self) -> list[dict[str, Any]]:
        """Return NNI's records of all trials, as the web UI shows them."""
        return cast(list[dict[str, Any]], self._get("/trial-jobs"))

    def record_of(self, trial_job_id: str) -> dict[str, Any]:
        """Return what the tuner sent for a trial: ``parameter_id``, ``parameters`` and what else it put beside them."""
        return cast(dict[str, Any], json.loads(self._get(f"/trial-jobs/{trial_job_id}")["hyperParameters"][0]))

    def submitted_trials(self) -> int:
        """Return the number of trials that were submitted so far, whatever became of them."""
        return sum(entry["trialJobNumber"] for entry in self._get("/job-statistics"))

    def set_max_trial_number(self, number: int) -> None:
        """Change the experiment's ``maxTrialNumber``."""
        self._update("MAX_TRIAL_NUM", {"maxTrialNumber": number})

    def fail(self, message: str) -> None:
        """End the experiment as ERROR, with a message that ``nnictl experiment status`` and the web UI show.

        NNI 3.0 shows "Dispatcher stream error" for everything that a dispatcher reports. The one text of ours that it
        repeats (in lower case) is a ``maxExperimentDuration`` that it cannot parse; the right one is restored then.

        Args:
            message: the reason, for the user.

        Raises:
            OSError: the manager cannot be reached, or does not end the experiment.
        """
        name = "maxExperimentDuration"
        given = {key: value for key, value in self.experiment()["params"].items() if key == name}
        try:
            self._update("MAX_EXEC_DURATION", {name: f"{message}."})  # the dot: it must not end like "30m"
            deadline = time.monotonic() + _TIMEOUT_SECONDS
            while self.status().name != "ERROR":
                if time.monotonic() > deadline:
                    raise TimeoutError("the manager does not end the experiment")
                time.sleep(0.2)
        finally:
            self._update("MAX_EXEC_DURATION", given)

    def _update(self, what: str, params: dict[str, Any]) -> None:
        response = requests.put(
            f"{self._api}/experiment", params={"update_type": what}, json={"params": params}, timeout=_TIMEOUT_SECONDS
        )
        response.raise_for_status()

    def _get(self, path: str) -> Any:
        response = requests.get(self._api + path, timeout=_TIMEOUT_SECONDS)
        response.raise_for_status()
        return response.json()
