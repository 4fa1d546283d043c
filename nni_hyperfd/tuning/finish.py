"""What an ended experiment leaves for its user: the detector, the report, and what to type next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nni_hyperfd.detector import best
from nni_hyperfd.detector.best import Detector
from nni_hyperfd.files import FolderError
from nni_hyperfd.platform import default_state
from nni_hyperfd.report import task as report
from nni_hyperfd.tuning.data_set import Say

DETECTOR, REPORT = "detector", "report.html"
"""Names in the folder of results."""


def finish(experiment: Path, out: Path, state: Path | None, say: Say) -> list[str]:
    """Write detector and report of an ended experiment; what cannot be written is told, and costs nothing else.

    Args:
        experiment: NNI's folder of the experiment.
        out: the folder of results.
        state: the state file; the user's own by default.
        say: called with each step that takes long.

    Returns:
        Lines on what came out, and on what to type next.
    """
    lines: list[str] = []
    following: list[str] = []
    try:
        lines += _of_detector(best.write(experiment, out / DETECTOR, say), out)
        following.append(f"Next: hyperfd detect {out / DETECTOR} IMAGES --draw drawn")
    except FolderError as error:
        lines.append(f"No detector: {error}.")
        following.append(f"Then: hyperfd best {experiment} --out {out / DETECTOR}")
    try:
        path = report.write(experiment, out / REPORT, default_state() if state is None else state, progress=say)
        lines.append(f"Report, for you alone: {path}")
    except FolderError as error:
        lines.append(f"No report: {error}.")
        following.append(f"Then: hyperfd report {experiment} --out {out / REPORT}")
    return lines + following


def _of_detector(detector: Detector, out: Path) -> Iterator[str]:
    test = "" if detector.test is None else f"; {detector.test:.3f} on the test split, which chose nothing"
    yield f"AP@50 on the validation split: {detector.before:.3f} before, {detector.validation:.3f} after{test}"
    if detector.validation <= detector.before:
        yield "No configuration beat the starting detector: keep that one, or try more with --budget and another --out."
    yield f"Detector: {out / DETECTOR} (card.md describes it), {detector.images_per_second:.1f} images/s on one core"
