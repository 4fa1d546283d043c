"""The few REST calls to the NNI manager that neither a tuner's nor a trial's channel offers."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import urlsplit

import requests

_TIMEOUT_SECONDS = 20


class Manager:
    """The NNI manager at the other end of a command channel.

    Args:
        channel: the tuner's channel (``ws://host:port[/prefix]/tuner``) or a trial's
            (``http://host:port[/prefix]/env/...``), as NNI puts it into the environment.
    """

    def __init__(self, channel: str) -> None:
        parts = urlsplit(channel)
        prefix = parts.path.removesuffix("/tuner").split("/env/")[0]
        self._api = f"http://{parts.netloc}{prefix}/api/v1/nni"

    def experiment(self) -> dict[str, Any]:
        """The experiment's profile: ``id``, ``params`` (the configuration), ..."""
        return self._get("/experiment")

    def record_of(self, trial_job_id: str) -> dict[str, Any]:
        """What the tuner sent for this trial: ``parameter_id``, ``parameters`` and what else it put beside them."""
        return json.loads(self._get(f"/trial-jobs/{trial_job_id}")["hyperParameters"][0])

    def submitted_trials(self) -> int:
        return sum(entry["trialJobNumber"] for entry in self._get("/job-statistics"))

    def set_max_trial_number(self, number: int) -> None:
        self._update("MAX_TRIAL_NUM", {"maxTrialNumber": number})

    def fail(self, message: str) -> None:
        """End the experiment as ERROR, with a message that ``nnictl experiment status`` and the web UI show.

        NNI 3.0 shows "Dispatcher stream error" for everything that a dispatcher reports. The one text of ours that it
        repeats (in small letters) is a maxExperimentDuration that it cannot read; the right one is put back afterwards.

        Raises:
            OSError: the manager cannot be reached, or does not take notice.
        """
        name = "maxExperimentDuration"
        given = {key: value for key, value in self.experiment()["params"].items() if key == name}
        try:
            self._update("MAX_EXEC_DURATION", {name: f"{message}."})  # the dot: it must not end like "30m"
            deadline = time.monotonic() + _TIMEOUT_SECONDS
            while self._get("/check-status")["status"] != "ERROR":
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
