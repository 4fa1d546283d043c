"""Panels on the trials: what each has brought, how soon, and which parameters matter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.platform import TaskView
from nni_hyperfd.report.page import AFTER, INK, LINE, MARK, MissingError, Table, draw, figures, html
from nni_hyperfd.report.subject import Attempt, Subject

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AXES = 8
_FEW = 8
_BINS = 4


def progress(subject: Subject) -> Markup:
    """AP against trials and against hours, with the line to beat."""
    ended = [attempt for attempt in subject.attempts if attempt.ap is not None]
    if not ended:
        raise MissingError("No trial has brought a result yet.")
    shown = [_progress("AP@50 against trials", "trial", [float(a.number) for a in ended], ended, subject)]
    begins = [attempt.started for attempt in subject.attempts if attempt.started is not None]
    if begins and all(attempt.ended is not None for attempt in ended):
        hours = [(a.ended - min(begins)).total_seconds() / 3600 for a in ended if a.ended is not None]
        unit, factor = ("hours", 1.0) if max(hours) >= 1 else ("minutes", 60.0)
        times = [hour * factor for hour in hours]
        shown.append(_progress(f"AP@50 against {unit}", f"{unit} since the first trial began", times, ended, subject))
    return figures(*shown)


def configurations(subject: Subject) -> Markup:
    """Every configuration with what was expected of it and what came out."""
    if not subject.attempts:
        raise MissingError("No configuration was tried yet.")
    names = list(dict.fromkeys(name for attempt in subject.attempts for name in attempt.parameters))
    ranks = _ranks([attempt.ap for attempt in subject.attempts], subject.maximize)
    rows = [
        [
            str(attempt.number),
            "-" if attempt.rank is None else str(attempt.rank),
            "-" if attempt.expected is None else f"{attempt.expected:+.2f}",
            "-" if attempt.ap is None else f"{attempt.ap:.4f}",
            rank,
            *(_value(attempt.parameters.get(name)) for name in names),
            "" if attempt.status == "succeeded" else attempt.status,
        ]
        for attempt, rank in zip(subject.attempts, ranks, strict=True)
    ]
    heads = ["trial", "rank when picked", "expected", "AP@50", "place", *names, ""]
    return html(Table(heads, rows))


def parallel(subject: Subject) -> Markup:
    """Parallel coordinates of the configurations that brought a result."""
    ended = [attempt for attempt in subject.attempts if attempt.ap is not None]
    if len(ended) < 2:
        raise MissingError("This needs two trials with a result.")
    values: dict[str, list[object]] = {
        name: [attempt.parameters.get(name) for attempt in ended] for name in ended[0].parameters
    }
    varied = {name: own for name, own in values.items() if len(set(map(str, own))) > 1}
    if not varied:
        raise MissingError("All trials had the same configuration.")
    chosen = dict(list(varied.items())[:_AXES])
    aps = np.array([attempt.ap for attempt in ended], float)

    def make(figure: Figure) -> None:
        axes = figure.subplots()
        places = [_placed(own) for own in chosen.values()]
        columns = [place for place, _ in places] + [_scaled(aps)]
        best = int((aps if subject.maximize else -aps).argmax())
        for row in range(len(ended)):
            share = float(columns[-1][row])
            colour, alpha = (MARK, 1.0) if row == best else (AFTER, 0.25 + 0.6 * share)
            axes.plot(range(len(columns)), [column[row] for column in columns], color=colour, alpha=alpha, marker=".")
        for number, (_, ticks) in enumerate(places):
            axes.axvline(number, color=LINE, linewidth=0.8)
            _mark(axes, number, ticks)
        axes.axvline(len(columns) - 1, color=LINE, linewidth=0.8)
        _mark(axes, len(columns) - 1, [(0.0, f"{aps.min():.3f}"), (1.0, f"{aps.max():.3f}")])
        axes.set_xticks(range(len(columns)), [*(name.replace("_", "\n") for name in chosen), "AP@50"])
        axes.set_yticks([])
        axes.tick_params(bottom=False)
        axes.set_ylim(-0.1, 1.1)
        axes.spines[["left", "bottom"]].set_visible(False)

    wide = (max(4.6, 1.05 * (len(chosen) + 1)), 3.1)
    same = [f"{name} ({_value(own[0])})" for name, own in values.items() if name not in varied]
    note = [f"The same in all trials: {', '.join(same)}."] if same else []
    return html(figures(draw("The configurations; the best one is marked", make, wide)), *note)


def _mark(axes: Axes, place: int, ticks: Sequence[tuple[float, str]]) -> None:
    """Write values at an axis: the highest above it, the lowest below, the others beside it."""
    for at, text in ticks:
        if 0 < at < 1:
            axes.text(place + 0.04, at, text, fontsize=8, color=INK, va="center")
        elif at >= 1:
            axes.text(place, 1.03, text, fontsize=8, color=INK, ha="center", va="bottom")
        else:
            axes.text(place, -0.03, text, fontsize=8, color=INK, ha="center", va="top")


def importance(subject: Subject) -> Markup:
    """How much each parameter alone explains, over all results of the search space in the state."""
    task = subject.task
    assert subject.platform is not None
    known = [other for other in subject.platform.tasks() if other.space.signature == task.space.signature]
    shares, results, data_sets = explained(known)
    if not shares:
        raise MissingError(f"This needs {_FEW} results of the search space in the state.")
    top = sorted(shares.items(), key=lambda item: item[1])[-12:]

    def make(figure: Figure) -> None:
        axes = figure.subplots()
        axes.barh([name for name, _ in top], [share for _, share in top], color=AFTER)
        for place, (_, share) in enumerate(top):
            axes.text(share, place, f" {share:.0%}", va="center", color=INK)
        axes.set(xlabel="share of the variance", xlim=(0, max(share for _, share in top) * 1.2 + 0.01))
        axes.spines["left"].set_visible(False)
        axes.tick_params(left=False)

    return html(
        figures(draw("Importance of the parameters", make, (4.6, 0.9 + 0.25 * len(top)))),
        f"Over {results} results on {data_sets} data sets in the state, those of the warm-up included.",
    )


def explained(tasks: Sequence[TaskView]) -> tuple[dict[str, float], int, int]:
    """Share of the variance within tasks that each parameter alone explains.

    Results are standardised in each task. A parameter's values are taken as groups, many numbers in four groups of
    equal size; the share is the variance between the groups' means, less what chance alone gives (omega^2).

    Returns:
        Share by name in [0, 1] and numbers of results and tasks; no shares for fewer than 8 results.
    """
    columns: dict[str, list[object]] = defaultdict(list)
    scores: list[float] = []
    used = 0
    for task in tasks:
        found = task.results
        values = np.array(found.performance)
        if len(values) < 2 or not values.std() > 0:
            continue
        used += 1
        scores += ((values - values.mean()) / values.std()).tolist()
        for configuration in found.configurations:
            for name, value in configuration.items():
                columns[name].append(value)
    if len(scores) < _FEW:
        return {}, len(scores), used
    whole = {name: own for name, own in columns.items() if len(own) == len(scores)}
    shares = {name: _omega(_groups(own), np.array(scores)) for name, own in whole.items()}
    return {name: share for name, share in shares.items() if share is not None}, len(scores), used


def _groups(values: Sequence[object]) -> NDArray[np.int64]:
    """The group of each value."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values) and len(set(numbers)) > _BINS:
        edges = np.quantile(numbers, np.linspace(0, 1, _BINS + 1)[1:-1])
        return np.searchsorted(edges, numbers, side="right").astype(np.int64)
    names = {text: place for place, text in enumerate(sorted(set(map(str, values))))}
    return np.array([names[str(value)] for value in values], np.int64)


def _omega(groups: NDArray[np.int64], scores: NDArray[np.float64]) -> float | None:
    kinds = np.unique(groups)
    if len(kinds) < 2 or len(scores) <= len(kinds):
        return None
    total = ((scores - scores.mean()) ** 2).sum()
    between = sum((groups == kind).sum() * (scores[groups == kind].mean() - scores.mean()) ** 2 for kind in kinds)
    chance = (total - between) / (len(scores) - len(kinds))
    return float(max(0.0, (between - (len(kinds) - 1) * chance) / (total + chance)))


def _progress(title: str, label: str, places: Sequence[float], ended: Sequence[Attempt], subject: Subject) -> Markup:
    aps = np.array([attempt.ap for attempt in ended], float)
    best = np.maximum.accumulate(aps) if subject.maximize else np.minimum.accumulate(aps)

    def make(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(places, aps, "o", color=AFTER, label="a trial")
        axes.step(places, best, where="post", color=AFTER, label="best so far", linewidth=1.6)
        baseline = subject.baseline
        if baseline is not None:
            axes.axhline(baseline, color=MARK, linestyle="--", linewidth=1.2, label=f"to beat: {baseline:.3f}")
        axes.set(xlabel=label, ylabel="AP@50 (validation)")
        axes.set_xlim(0, max(places) * 1.05)
        if label == "trial":
            axes.set_xticks([place for place in places if len(places) <= 12 or place % 5 == 0])
        axes.grid(True)
        figure.legend(loc="outside upper right", ncols=3)

    return draw(title, make)


def _placed(values: Sequence[object]) -> tuple[NDArray[np.float64], list[tuple[float, str]]]:
    """Places in [0, 1] of a parameter's values, and texts at them; numbers over decades by their logarithm."""
    distinct = list(dict.fromkeys(values))
    numbers = [value for value in distinct if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(distinct):
        order = {text: place for place, text in enumerate(sorted({str(value) for value in distinct}))}
        at = np.array([order[str(value)] for value in values], float) / max(len(order) - 1, 1)
        return at, [(place / max(len(order) - 1, 1), text[:14]) for text, place in order.items()]
    row = np.array([float(str(value)) for value in values])
    if row.min() > 0 and row.max() / row.min() >= 100:
        at = _scaled(np.log(row))
    else:
        at = _scaled(row)
    ends = {float(at.min()): f"{row.min():g}", float(at.max()): f"{row.max():g}"}
    return at, [(place, text) for place, text in ends.items()]


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    width = values.max() - values.min()
    scaled: NDArray[np.float64] = (values - values.min()) / width if width > 0 else np.full(len(values), 0.5)
    return scaled


def _ranks(aps: Sequence[float | None], maximize: bool) -> list[str]:
    """Place of each trial by its result, from 1."""
    known = sorted((ap for ap in aps if ap is not None), reverse=maximize)
    return ["-" if ap is None else str(known.index(ap) + 1) for ap in aps]


def _value(value: object) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
