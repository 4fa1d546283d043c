"""Panels on the owner's images: detections before and after, precision and recall, and which faces are found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nni_hyperfd.detector import best
from nni_hyperfd.detector.experiments import START
from nni_hyperfd.detector.measures import Faces, Threshold, faces_of, match, sizes
from nni_hyperfd.detector.onnx_detector import MODEL, OnnxDetector
from nni_hyperfd.report import pictures
from nni_hyperfd.report.page import AFTER, BEFORE, INK, MARK, Table, draw, figures, html
from nni_hyperfd.report.subject import Subject

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_IMAGES = 12
_SIZES = (0, 16, 32, 64, 128, float("inf"))
_CROWDS = (1, 2, 5, 10, float("inf"))
_COLOURS = {"before": BEFORE, "after": AFTER}
_NAMES = {"val": "validation", "test": "test"}


def detections(subject: Subject) -> Markup:
    """Validation images before and after."""
    found = subject.matched
    lowest = best.choose(found["before"]["val"]).score, best.choose(found["after"]["val"]).score
    return html(
        f"Shown are detections with a score of {lowest[0]:.3f} or more before and {lowest[1]:.3f} or more after.",
        pictures.pairs(subject.best, lowest, _IMAGES),
    )


def precision_and_recall(subject: Subject) -> Markup:
    """Curves on the validation and test splits, and thresholds."""
    found = subject.matched
    curves = [_curve(subject, split) for split in found["after"]]
    rows = []
    for split, after in found["after"].items():
        before = found["before"][split]
        rows.append([f"{_NAMES[split]}", *(_number(one.ap()) for one in (before, after)), str(after.faces)])
    chosen = best.choose(found["after"]["val"])
    thresholds = [
        [f"precision {precision:g}", *(["never reached", "-", "-"] if at is None else _threshold(at))]
        for precision, at in ((p, found["after"]["val"].threshold(p)) for p in (0.9, 0.95, 0.99))
    ]
    return html(
        figures(*curves),
        Table(["split", "AP@50 before", "after", "faces"], rows),
        Table(
            ["threshold for", "score", "precision", "recall"],
            [*thresholds, ["the best F1 (chosen)", *_threshold(chosen)]],
            "After fine-tuning, on the validation split",
        ),
    )


def by_faces(subject: Subject) -> Markup:
    """AP by size of face and by number of faces in an image."""
    trial = subject.best
    split = trial.splits["val"]
    faces = faces_of(split, OnnxDetector(trial.exported).settings.min_face)
    results = {name: trial.detections(model, "val") for name, model in (("before", START), ("after", MODEL))}

    by_size: dict[str, list[float | None]] = {}
    ranges = list(zip(_SIZES, _SIZES[1:], strict=False))
    for name, records in results.items():
        by_size[name] = [match(faces, records, between).ap() for between in ranges]
    counted = np.concatenate([own.boxes[own.counts] for own in faces])
    many = [int(((sizes(counted) >= low) & (sizes(counted) < high)).sum()) for low, high in ranges]
    labels = [f"{low:g}-{high:g}" if high < float("inf") else f"{low:g}+" for low, high in ranges]

    crowds = list(zip(_CROWDS, _CROWDS[1:], strict=False))
    groups = [[own for own in faces if low <= own.counts.sum() < high] for low, high in crowds]
    by_crowd = {name: [match(group, records).ap() for group in groups] for name, records in results.items()}
    crowd_labels = [_crowd(low, high) for low, high in crowds]
    return figures(
        _bars("AP@50 by size of face (validation)", "side in pixels of the file", labels, by_size, many, "faces"),
        _bars(
            "AP@50 by number of faces in the image (validation)",
            "faces that count",
            crowd_labels,
            by_crowd,
            list(map(_images, groups)),
            "images",
        ),
    )


def _images(group: Sequence[Faces]) -> int:
    return len(group)


def _crowd(low: float, high: float) -> str:
    if high == float("inf"):
        return f"{low:g}+"
    return f"{low:g}" if high - low == 1 else f"{low:g}-{high - 1:g}"


def _curve(subject: Subject, split: str) -> Markup:
    def make(figure: Figure) -> None:
        axes = figure.subplots()
        for name, colour in _COLOURS.items():
            precision, recall = subject.matched[name][split].curve()
            axes.plot(recall, precision, color=colour, label=name, linewidth=1.6)
        if split == "val":
            chosen = best.choose(subject.matched["after"]["val"])
            axes.plot([chosen.recall], [chosen.precision], "o", color=MARK, label=f"threshold {chosen.score:.3f}")
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
        axes.grid(True)
        axes.legend(loc="lower left")

    return draw(f"Precision and recall, {_NAMES[split]} split", make)


def _bars(
    title: str,
    label: str,
    names: Sequence[str],
    values: dict[str, list[float | None]],
    many: Sequence[int],
    what: str,
) -> Markup:
    def make(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        for place, (name, own) in enumerate(values.items()):
            at = np.arange(len(names)) + (place - 0.5) * 0.38
            axes.bar(at, [value or 0.0 for value in own], 0.36, color=_COLOURS[name], label=name)
        texts = [
            f"{name}\n{count} {what if count != 1 else what.removesuffix('s')}"
            for name, count in zip(names, many, strict=True)
        ]
        axes.set_xticks(range(len(names)), texts)
        for place, count in enumerate(many):
            if not count:
                axes.text(place, 0.02, "none", ha="center", color=INK)
        axes.set(xlabel=label, ylim=(0, 1.02), ylabel="AP@50")
        axes.grid(True, axis="y")
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper right", ncols=2)

    return draw(title, make)


def _threshold(at: Threshold) -> list[str]:
    return [f"{value:.3f}" for value in (at.score, at.precision, at.recall)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
