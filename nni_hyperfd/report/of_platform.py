"""Panels on what the platform knows and got: the nearest data sets, what left this machine, time and cost."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.platform import Platform, TaskView
from nni_hyperfd.privacy import settings as owner_settings
from nni_hyperfd.privacy.accounting import GaussianRelease, ZCDPAccountant
from nni_hyperfd.privacy.release import DataSet, ledger_of
from nni_hyperfd.privacy.settings import PrivacyError
from nni_hyperfd.report.page import AFTER, INK, MARK, MissingError, Table, draw, figures, html
from nni_hyperfd.report.subject import Subject
from nni_hyperfd.task import Phase

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

_NEAREST = 8


def neighbours(subject: Subject) -> Markup:
    """The past tasks whose meta-features are nearest, and the map of all of them."""
    task = subject.task
    if task.meta_feature is None:
        raise MissingError("The data set was not described, so nothing is known to be near it.")
    assert subject.platform is not None
    known = {other.id: other for other in subject.platform.tasks()}
    near = subject.platform.rank(task.space, task.id, task.settings).neighbours
    near = [other for other in near if other.task_id != task.id][:_NEAREST]
    rows = []
    for other in near:
        past = known[other.task_id]
        weight = "-" if other.weight is None else f"{other.weight:.2f}"
        numbers = [_text(past.num_images), _text(past.num_boxes), _text(past.baseline), _text(past.best)]
        rows.append([_name(past), f"{other.distance:.3f}", weight, *numbers])
    heads = ["data set", "distance", "weight", "images", "boxes", "AP@50 before", "best"]
    parts = [figures(_map(subject.platform, task, {other.task_id for other in near}, list(known.values())))]
    return html(*parts, Table(heads, rows) if rows else "No other data set has results in this search space.")


def _map(platform: Platform, task: TaskView, near: set[int], known: list[TaskView]) -> Markup:
    """All meta-features in the plane of their largest variance."""
    carried = platform.versions.carried(known, task.extractor_id)
    numbers = np.array([np.asarray(vector, float) for vector in carried.values()])
    plane, share = _plane(numbers)

    def make(figure: Figure) -> None:
        axes = figure.subplots()
        kinds = {"another": (INK, 0.4), "near": (AFTER, 1.0), "this one": (MARK, 1.0)}
        ids = list(carried)
        for label, (colour, alpha) in kinds.items():
            own = [row for row, id in enumerate(ids) if _kind(id, task.id, near) == label]
            if own:
                size = 60 if label == "this one" else 22
                axes.scatter(
                    plane[own, 0], plane[own, 1], s=size, color=colour, alpha=alpha, label=f"{label} ({len(own)})"
                )
        axes.set(xlabel="first component", ylabel="second component")
        figure.legend(loc="outside upper right", ncols=3)

    return draw(f"Map of the meta-features: {share:.0%} of their variance", make)


def _kind(id: int, own: int, near: set[int]) -> str:
    return "this one" if id == own else "near" if id in near else "another"


def _plane(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Rows (n, d) in their first two principal components (n, 2), and the share of the variance that these have."""
    centred = rows - rows.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    plane = np.zeros((len(rows), 2))
    kept = min(2, len(values))
    plane[:, :kept] = left[:, :kept] * values[:kept]
    total = float((values**2).sum())
    return plane, float((values[:2] ** 2).sum() / total) if total else 1.0


def what_left(subject: Subject) -> Markup:
    """What the platform holds of the data set, what the trials sent, and what the privacy ledger says."""
    parts: list[Markup | Table | str] = []
    if subject.has_task:
        parts.append(_held(subject.task))
    try:
        parts += [_sent(subject.folder), _ledger(subject.best.data)]
    except MissingError as error:
        parts.append(str(error))
    if not subject.has_task:
        parts.append("What the platform holds is in another state.")
    return html(*parts)


def _held(task: TaskView) -> Table:
    """What the state has of the task."""
    results = [trial for trial in task.trials if trial.is_result]
    described = (
        "nothing" if task.meta_feature is None else f"{len(task.meta_feature)} numbers: {_few(task.meta_feature)}"
    )
    rows = [
        ["description of the data set", described],
        ["number of training images", _text(task.num_images)],
        ["number of boxes", _text(task.num_boxes)],
        ["AP@50 before fine-tuning", _text(task.baseline)],
        ["results", f"{len(results)} numbers: {', '.join(_text(trial.performance) for trial in results)}"],
        ["start and end of trials", f"{2 * len(task.trials)} times of this machine's clock"],
        ["images, file names, annotations, weights", "none"],
    ]
    return Table(["what the platform holds", ""], rows)


def _sent(folder: Path) -> Table | str:
    """What NNI's database has of each kind of metric that trials have sent."""
    path = folder / "db" / "nni.sqlite"
    if not path.is_file():
        return "NNI's database of the experiment is not here, so the bytes of its metrics are not counted."
    query = "SELECT type, COUNT(*), COUNT(DISTINCT trialJobId), SUM(LENGTH(data)) FROM MetricData GROUP BY type"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute(query).fetchall()
    except sqlite3.Error as error:
        return f"NNI's database of the experiment cannot be read ({error})."
    words = {"PERIODICAL": "intermediate results", "FINAL": "final results"}
    rows = [[words.get(kind, kind), f"{many:,}", f"{trials:,}", f"{size:,}"] for kind, many, trials, size in found]
    return Table(["metrics sent to NNI", "messages", "trials", "bytes"], rows)


def _ledger(data: Path | None) -> Markup | Table | str:
    """The privacy ledger of the data set."""
    try:
        owner = owner_settings.of_owner()
        entries = ledger_of(DataSet(data, ""), owner).entries()
    except PrivacyError as error:
        return f"The privacy ledger cannot be read: {error}."
    if not entries:
        noise = "The owner's settings are off" if owner.off else "No description with noise has left"
        return f"{noise}: the privacy ledger of the data set is empty."
    accountant, rows = ZCDPAccountant(), []
    for entry in sorted(entries, key=lambda entry: entry.when):
        alone = ZCDPAccountant()
        for each in (alone, accountant):
            each.compose(GaussianRelease(entry.multiplier))
        spent = [f"{each.epsilon(owner.delta):.2f}" for each in (alone, accountant)]
        rows.append([entry.when, f"{entry.size} or more", str(len(entry.released)), *spent])
    caption = f"Privacy ledger, delta {owner.delta:g}" + (
        "" if owner.off else f", at most epsilon {owner.total:g} in all"
    )
    return Table(["description", "images", "numbers", "epsilon", "in all"], rows, caption)


def time_and_cost(subject: Subject, price: float | None) -> Markup:
    """How long each part took, and what it cost."""
    parts: dict[str, list[float]] = {}
    if subject.has_task:
        for trial in subject.task.trials:
            if trial.started and trial.ended:
                parts.setdefault(_phase(trial.phase), []).append((trial.ended - trial.started).total_seconds())
    else:
        parts["fine-tuning"] = [trial.seconds for trial in subject.trials]
    if not any(parts.values()):
        raise MissingError("No trial has ended yet.")
    total = sum(map(sum, parts.values()))
    rows = [[name, str(len(own)), _duration(sum(own)), _cost(sum(own), price)] for name, own in parts.items()] + [
        ["all", str(sum(map(len, parts.values()))), _duration(total), _cost(total, price)]
    ]
    extra = ""
    gain = _gain(subject)
    if gain is not None and gain > 0:
        extra = f"{_duration(total / (100 * gain))} for each hundredth of AP@50 gained."
    heads = ["phase", "trials", "time of trials", "cost"]
    table = Table(heads, rows)
    hint = "" if price is not None else "No price was given: hyperfd report --price 1.20 is that of an hour of a trial."
    return html(table, *filter(None, (extra, hint)))


def _gain(subject: Subject) -> float | None:
    aps = [attempt.ap for attempt in subject.attempts if attempt.ap is not None]
    if not aps or subject.baseline is None:
        return None
    return (max(aps) - subject.baseline) if subject.maximize else subject.baseline - min(aps)


def _phase(phase: Phase) -> str:
    return {Phase.EXTRACT: "describing the data", Phase.LEARN: "updating the extractor"}.get(phase, "fine-tuning")


def _cost(seconds: float, price: float | None) -> str:
    return "-" if price is None else f"{seconds / 3600 * price:.2f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _name(task: TaskView) -> str:
    return f"task {task.id}" if task.dataset is None else f"{task.dataset} (the platform's own)"


def _few(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:.3f}" for number in numbers[:3]) + ", ..."


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
