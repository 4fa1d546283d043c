"""The page of a state, on the platform's side: how its tasks, its ranking and its extractor have developed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sqlalchemy import select

from nni_hyperfd.files import FolderError
from nni_hyperfd.platform import Platform, TaskView
from nni_hyperfd.report import page
from nni_hyperfd.report.page import AFTER, BEFORE, INK, MARK, MissingError, Table, draw, figures, html, panel
from nni_hyperfd.state.tables import EncoderRow, ExtractorRow

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

_ASKED_AGAIN = 30
"""Maximum number of the newest tasks whose configurations are ranked again."""
_FEW = 3


@dataclass(frozen=True)
class Version:
    """A version of the extractor.

    Attributes:
        id: of the version.
        parent: the version that it was made from.
        created: when, as text.
        head: whether it is the newest one that is handed out.
        tasks: number of clients' tasks that were described by it.
    """

    id: int
    parent: int | None
    created: str
    head: bool
    tasks: int


class History:
    """What the state holds, in the order in which it came.

    Args:
        platform: the platform of the state.
    """

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        known = platform.tasks()
        self.offline = [task for task in known if task.dataset is not None]
        self.clients = [task for task in known if task.dataset is None and task.best is not None]

    def versions(self) -> list[Version]:
        """All versions of the extractor."""
        with self.platform.store.read() as session:
            rows = session.scalars(select(ExtractorRow).order_by(ExtractorRow.id)).all()
            return [
                Version(row.id, row.parent_id, f"{row.created:%Y-%m-%d %H:%M}", row.head, self._described_by(row.id))
                for row in rows
            ]

    def _described_by(self, version: int) -> int:
        return sum(task.extractor_id == version and task.meta_feature is not None for task in self.clients)

    def encoders(self) -> list[list[str]]:
        """Space, version, task and time of each version of a configuration encoder."""
        spaces = {task.space.signature: task.space.kind for task in [*self.offline, *self.clients]}
        with self.platform.store.read() as session:
            rows = session.scalars(select(EncoderRow).order_by(EncoderRow.id)).all()
            return [
                [
                    spaces.get(row.space_signature, "-"),
                    str(row.id),
                    f"task {row.task_id}",
                    str(row.extractor_id),
                    f"{row.created:%Y-%m-%d %H:%M}",
                ]
                for row in rows
            ]


def write(state: Path, out: Path) -> Path:
    """Write the page of a state, one HTML file without links to other files.

    Args:
        state: the state file.
        out: the file to write.

    Returns:
        The file.

    Raises:
        FolderError: there is no such state, or no task in it has a result.
        StateError: it cannot be read.
    """
    page.require()
    if not state.exists():
        raise FolderError(f"state {state}: there is none yet; run an experiment or name another file with --state")
    history = History(Platform(state))
    if not history.clients:
        raise FolderError(f"state {state}: no task has a result yet; wait for the first trial of an experiment")
    trials = sum(len(task.results.performance) for task in history.clients)
    lead = [
        f"Tasks: {len(history.clients)}, with {trials} results. Data sets of the platform's own: "
        f"{len(history.offline)}. The platform has no image of any of them.",
    ]
    panels = [
        panel("Tasks over time", "AP@50 before fine-tuning and of the best trial.", lambda: tasks(history)),
        panel(
            "Gain against mean rank",
            "Mean rank takes what ranked highest on average on all earlier data sets of the space. It can only be "
            "judged by configurations that were tried: shown is the result of the one that it would have tried first "
            "among these, beside the first pick's.",
            lambda: against_mean_rank(history),
        ),
        panel(
            "Forgetting",
            "Rank correlation of what was expected of a task's configurations with what came out: when they were "
            "picked, and if the same data set came again now. Now should not be lower; one task of few results says "
            "little.",
            lambda: forgetting(history),
        ),
        panel(
            "Drift of the extractor",
            "How far the meta-features of the platform's own data sets have moved since the first version, over their "
            "mean distance from each other.",
            lambda: drift(history),
        ),
        panel("Versions", "Extractors and configuration encoders.", lambda: versions(history)),
    ]
    return page.write(out, f"State {state.name}", lead, panels)


def tasks(history: History) -> Markup:
    """AP before and after of each task."""
    known = history.clients
    places = range(1, len(known) + 1)

    def make(figure: Figure) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.subplots()
        before = [np.nan if task.baseline is None else task.baseline for task in known]
        after = [_best(task) for task in known]
        axes.vlines(places, before, after, color=INK, alpha=0.3)
        axes.plot(places, before, "o", color=BEFORE, label="before")
        axes.plot(places, after, "o", color=AFTER, label="best trial")
        axes.set(xlabel="task, in order of arrival", ylabel="AP@50")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(True, axis="y")
        figure.legend(loc="outside upper right", ncols=2)

    rows = [
        [
            str(task.id),
            f"{task.created:%Y-%m-%d}",
            task.space.kind,
            _number(task.num_images),
            _number(task.baseline),
            f"{_best(task):.4f}",
            _number(_gain(task), "+.4f"),
            str(len(task.results.performance)),
            "-" if task.closed is None else f"{task.closed:%Y-%m-%d}",
        ]
        for task in known
    ]
    heads = ["task", "opened", "space", "images", "AP@50 before", "best", "gain", "results", "closed"]
    return html(figures(draw("AP@50 of the tasks", make)), Table(heads, rows))


def against_mean_rank(history: History) -> Markup:
    """First picks beside the configuration that mean rank would have tried first."""
    rows, gains = [], []
    for number, task in enumerate(history.clients):
        favourite = mean_ranks_favourite(task, [*history.offline, *history.clients[:number]])
        if favourite is None:
            continue
        results = task.results.performance
        gains.append(results[0] - results[favourite])
        sign = task.settings.sign
        aps = [sign * results[0], sign * results[favourite], _best(task)]
        rows.append([str(task.id), *(f"{ap:.4f}" for ap in aps), f"{gains[-1]:+.4f}"])
    if not rows:
        raise MissingError("No task has two results and an earlier data set of its space.")
    mean = float(np.mean(gains))
    heads = ["task", "first pick", "mean rank's first", "best of all picks", "first pick - mean rank's"]
    return html(f"On average the first pick brought {mean:+.4f} more than mean rank's.", Table(heads, rows))


def mean_ranks_favourite(task: TaskView, earlier: Sequence[TaskView]) -> int | None:
    """Which of a task's results mean rank would have come to first; None without two results or earlier tasks.

    Args:
        task: the task.
        earlier: the tasks before it, of any space.
    """
    from nni_hyperfd.recommenders.base import Task
    from nni_hyperfd.recommenders.simple import MeanRank

    alike = [other for other in earlier if other.space.signature == task.space.signature and other.results.performance]
    if len(task.results.performance) < 2 or not alike:
        return None
    recommender = MeanRank()
    for other in alike:
        found = other.results
        recommender.start_task(Task(0), other.space.encode(found.configurations))
        recommender.end_task(dict(enumerate(found.performance)))
    recommender.start_task(Task(1), task.space.encode(task.results.configurations))
    (favourite,) = recommender.ask(1)
    return favourite


def forgetting(history: History) -> Markup:
    """Rank correlations of expectations with results, then and now."""
    newest = max(task.id for task in [*history.clients, *history.offline])
    rows, pairs = [], []
    for task in history.clients[-_ASKED_AGAIN:]:
        then, now = _correlations(history.platform, task, newest + 1)
        if now is None:
            continue
        pairs.append((np.nan if then is None else then, now))
        rows.append([str(task.id), str(len(task.results.performance)), _number(then, "+.2f"), f"{now:+.2f}"])
    if not rows:
        raise MissingError(f"No closed task has {_FEW} results that differ.")
    known = np.array(pairs)

    def make(figure: Figure) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.subplots()
        places = [int(row[0]) for row in rows]
        axes.plot(places, known[:, 0], "o-", color=BEFORE, label="when picked")
        axes.plot(places, known[:, 1], "o-", color=AFTER, label="asked again now")
        axes.axhline(0, color=INK, linewidth=0.6)
        axes.set(xlabel="task", ylabel="rank correlation", ylim=(-1.05, 1.05))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(True, axis="y")
        figure.legend(loc="outside upper right", ncols=2)

    return html(
        figures(draw("Expected and actual order", make)),
        Table(["task", "results", "when picked", "asked again now"], rows),
    )


def _correlations(platform: Platform, task: TaskView, new_id: int) -> tuple[float | None, float | None]:
    """Rank correlation of a task's results with what was expected when picked, and with what is expected now."""
    tried = [trial for trial in task.trials if trial.is_result and trial.performance is not None]
    results = [task.settings.sign * trial.performance for trial in tried if trial.performance is not None]
    if task.closed is None or len(set(results)) < _FEW:
        return None, None
    again = replace(task, id=new_id, trials=(), closed=None)
    configurations = [trial.configuration for trial in tried]
    ranking = platform.preset(task.settings.preset).rank(again, configurations)
    expected = {id(one.configuration): one.score for one in ranking.recommendations}
    now = [expected[id(configuration)] for configuration in configurations]
    scores = [trial.score for trial in tried]
    then = [score for score in scores if score is not None]
    return _correlation(then, results) if len(then) == len(results) else None, _correlation(now, results)


def _correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return float(spearmanr(first, second).statistic)


def drift(history: History) -> Markup:
    """Movement of the meta-features of the platform's own data sets."""
    ids = [version.id for version in history.versions()]
    described = {
        version: {name: np.asarray(vector, float) for name, vector in own.items()}
        for version, own in history.platform.versions.described(ids).items()
    }
    moved = movement(described, ids)
    if len(moved) < 2:
        raise MissingError("There are no two versions of the extractor that have described the same data sets.")

    def make(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([str(version) for version in moved], list(moved.values()), "o-", color=MARK)
        axes.set(xlabel="version of the extractor", ylabel="relative distance", ylim=(0, None))
        axes.grid(True, axis="y")

    return figures(draw("Movement since the first version", make))


def movement(described: Mapping[int, Mapping[str, NDArray[np.float64]]], ids: Sequence[int]) -> dict[int, float]:
    """How far data sets have moved since the first version that has described any, over their distance from each other.

    Args:
        described: meta-features by version and data set.
        ids: the versions, in order.

    Returns:
        Mean distance by version; versions that share no data set with the first are left out.
    """
    known = [version for version in ids if described.get(version)]
    if not known:
        return {}
    first = described[known[0]]
    rows = np.array(list(first.values()))
    apart = np.linalg.norm(rows[:, None] - rows[None], axis=-1)
    scale = float(apart.sum() / max(len(rows) * (len(rows) - 1), 1)) or 1.0
    result = {}
    for version in known:
        both = [name for name in first if name in described[version]]
        if both:
            moves = [np.linalg.norm(described[version][name] - first[name]) for name in both]
            result[version] = float(np.mean(moves)) / scale
    return result


def versions(history: History) -> Markup:
    """Tables of all versions."""
    extractors = [
        [
            str(version.id),
            "-" if version.parent is None else str(version.parent),
            version.created,
            str(version.tasks),
            "newest" if version.head else "",
        ]
        for version in history.versions()
    ]
    parts: list[Table | str] = [
        Table(["version", "made from", "created", "tasks described", ""], extractors, "Extractors"),
    ]
    encoders = history.encoders()
    if encoders:
        parts.append(Table(["space", "version", "learned from", "extractor", "created"], encoders, "Encoders"))
    else:
        parts.append("There is no configuration encoder yet.")
    return html(*parts)


def _best(task: TaskView) -> float:
    assert task.best is not None
    return task.best


def _gain(task: TaskView) -> float | None:
    return None if task.baseline is None else task.settings.sign * (_best(task) - task.baseline)


def _number(value: float | None, form: str = ".4f") -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:{form}}"
