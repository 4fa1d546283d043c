"""How the subsets differ: a table, a figure, a contact sheet for each."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nni_hyperfd.datasets.subsets.looks import LOOKS
from nni_hyperfd.datasets.subsets.pool import SPLITS, Pool

MEASURES = {
    "faces_per_image": "faces per image",
    "face_size": "side of the middle face, px",
    "brightness": "brightness (0 to 255)",
    "blur": "sharpness (variance of Laplacian)",
}
_COMPONENTS, _FITTED = 20, 2000

Row = dict[str, Any]


def describe(pool: Pool, looks: NDArray[np.float32], own: NDArray[np.int_]) -> Row:
    """Images by split, and the numbers of `MEASURES`: means over images, and the median over their faces for the size
    (NaN without one)."""
    boxes = [face for place in own for face in pool.faces[place] if not face["ignore"] and not face["iscrowd"]]
    sides = [np.sqrt(face["bbox"][2] * face["bbox"][3]) for face in boxes]
    row: Row = {split: int(np.sum(pool.splits[own] == split)) for split in SPLITS}
    row |= {"faces": len(boxes), "faces_per_image": len(boxes) / len(own)}
    row["face_size"] = float(np.median(sides)) if sides else float("nan")
    return row | dict(zip(LOOKS, map(float, looks[own, : len(LOOKS)].mean(axis=0)), strict=True))


def condensed(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first 20 principal components (n, at most 20) of standardised features, each of variance 1."""
    step = max(1, len(features) // _FITTED)
    rows = np.asarray(features[::step])
    reduce = make_pipeline(StandardScaler(), PCA(min(_COMPONENTS, *rows.shape), whiten=True, random_state=0)).fit(rows)
    chunks = (features[start : start + _FITTED] for start in range(0, len(features), _FITTED))
    return np.concatenate([reduce.transform(chunk).astype(np.float32) for chunk in chunks])


def told_apart(points: NDArray[np.float32], own: NDArray[np.int_], splits: NDArray[np.str_]) -> float:
    """Area under the ROC curve of a logistic regression that tells a subset's images from all others.

    It is fitted on the training split and measured on the others; 0.5 is chance. ``points`` (n, d) are features that
    the subset was not made from.
    """
    member = np.zeros(len(splits), bool)
    member[own] = True
    train = splits == "train"
    if any(len(np.unique(member[part])) < 2 for part in (train, ~train)):
        return float("nan")
    model = LogisticRegression(max_iter=1000, class_weight="balanced").fit(points[train], member[train])
    return float(roc_auc_score(member[~train], model.decision_function(points[~train])))


def write_table(rows: Sequence[Row], path: Path) -> None:
    """One line per subset."""
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(
            {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()} for row in rows
        )
    partial.replace(path)


def draw_spread(rows: Sequence[Row], whole: Row, path: Path) -> None:
    """A panel per measure: every subset's value, sorted, beside that of all images (dashed)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    for panel, (name, label) in zip(figure.subplots(2, 2).flat, MEASURES.items(), strict=True):
        values = np.array([row[name] for row in rows])
        for feature in dict.fromkeys(row["feature"] for row in rows):
            own = np.array([row["feature"] == feature for row in rows])
            rank = np.argsort(np.argsort(values))[own] + 1
            panel.plot(values[own], rank, ".", label=feature)
        panel.axvline(whole[name], color="black", linestyle="--", linewidth=1, label="all images")
        panel.set(xlabel=label, ylabel="subsets with at most this")
        if name != "brightness":
            panel.set_xscale("log", subs=[2, 5])
            panel.xaxis.set_major_formatter("{x:g}")
            panel.xaxis.set_minor_formatter("{x:g}")
    figure.axes[0].legend(fontsize="small")
    figure.suptitle(f"{len(rows)} subsets")
    partial = path.with_suffix(".partial")
    figure.savefig(partial, dpi=120, format="png")
    partial.replace(path)
