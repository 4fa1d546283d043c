"""How an experiment stands, from NNI's records of its trials."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from nni_hyperfd.wire import final_number, load_json, phase_of

_FAILED = ("FAILED", "USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED")


@dataclass(frozen=True)
class Progress:
    """How an experiment stands.

    Attributes:
        budget: configurations to try.
        described: whether the trial that describes the data set has ended.
        to_beat: AP@50 before fine-tuning, in [0, 1]; None before it is known.
        aps: AP@50 of the trials that have one, in their order.
        failed: number of failed trials.
        running: number of running trials that fine-tune.
        seconds: mean duration of the trials that have ended; None without one.
        last_failed: NNI's id of the last failed trial, or None.
    """

    budget: int
    described: bool
    to_beat: float | None
    aps: tuple[float, ...]
    failed: int
    running: int
    seconds: float | None
    last_failed: str | None

    @property
    def best(self) -> float | None:
        """The best AP@50 so far."""
        return max(self.aps, default=None)

    def line(self, concurrency: int) -> str:
        """One line on the progress: trials, AP so far beside the one to beat, time left."""
        if not self.described:
            return "the starting detector is measured, and the data set described"
        ended = len(self.aps) + self.failed
        parts = [f"{ended} of {self.budget} trials"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.running:
            parts.append(f"{self.running} running")
        parts.append("no AP yet" if self.best is None else f"AP@50 {self.best:.3f} so far")
        if self.to_beat is not None:
            parts.append(f"{self.to_beat:.3f} to beat")
        if self.seconds is not None and ended < self.budget:
            rounds = -(-(self.budget - ended) // concurrency)
            parts.append(f"about {timedelta(seconds=round(self.seconds * rounds))} left")
        return ", ".join(parts)


def of_trials(jobs: Sequence[Mapping[str, Any]], budget: int) -> Progress:
    """Read NNI's records of an experiment's trials (`Manager.trial_jobs`)."""
    described, to_beat, failed, running, last_failed = False, None, 0, 0, None
    aps: list[float] = []
    durations: list[float] = []
    for job in sorted(jobs, key=lambda job: int(job["sequenceId"])):
        final = job.get("finalMetricData")
        value = load_json(load_json(final[0]["data"])) if final else None
        if job["status"] in _FAILED:
            last_failed = str(job["trialJobId"])
        if phase_of(json.loads(job["hyperParameters"][0])["parameters"]) != "fine-tune":
            described = described or job["status"] not in ("WAITING", "RUNNING")
            number = value.get("default") if isinstance(value, dict) else None
            to_beat = to_beat if number is None else float(number)
        elif job["status"] == "SUCCEEDED" and (ap := final_number(value)) is not None:
            aps.append(ap)
            durations.append((job["endTime"] - job["startTime"]) / 1000)
        elif job["status"] in _FAILED or job["status"] == "SUCCEEDED":
            failed += 1
        elif job["status"] == "RUNNING":
            running += 1
    seconds = sum(durations) / len(durations) if durations else None
    return Progress(budget, described or bool(aps), to_beat, tuple(aps), failed, running, seconds, last_failed)
