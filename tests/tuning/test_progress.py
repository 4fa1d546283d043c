from __future__ import annotations

import json
from typing import Any

from nni_hyperfd.tuning.progress import of_trials


def job(number: int, status: str, ap: float | None = None, seconds: int = 60, **parameters: Any) -> dict[str, Any]:
    record = {"parameter_id": number, "parameters": parameters}
    final = [] if ap is None else [{"data": json.dumps(json.dumps({"default": ap}))}]
    times = {"startTime": 0, "endTime": 1000 * seconds}
    named = {"sequenceId": number, "trialJobId": f"t{number}", "status": status, "finalMetricData": final}
    return named | times | {"hyperParameters": [json.dumps(record)]}


def test_the_line_tells_trials_aps_and_the_time_left() -> None:
    first = job(0, "SUCCEEDED", 0.25, phase="extract")
    assert "is measured" in of_trials([job(0, "RUNNING", phase="extract")], 3).line(1)
    none = of_trials([first, job(1, "RUNNING", x=1)], 3)
    assert none.line(1) == "0 of 3 trials, 1 running, no AP yet, 0.250 to beat"
    some = of_trials([job(3, "RUNNING", x=3), job(2, "FAILED", x=2), job(1, "SUCCEEDED", 0.5, x=1), first], 5)
    assert some.line(2) == "2 of 5 trials, 1 failed, 1 running, AP@50 0.500 so far, 0.250 to beat, about 0:02:00 left"
    assert (some.best, some.last_failed, some.to_beat) == (0.5, "t2", 0.25)


def test_a_failed_description_is_no_failed_configuration() -> None:
    progress = of_trials([job(0, "FAILED", phase="extract")], 2)
    assert (progress.failed, progress.last_failed, progress.to_beat) == (0, "t0", None)
