"""How the subsets differ: a table and a figure."""

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

from nni_hyperfd.datasets import coco
from nni_hyperfd.datasets.subsets.looks import LOOKS
from nni_hyperfd.datasets.subsets.pool import SPLITS, Pool
from nni_hyperfd.files import atomic

MEASURES = {
    "faces_per_image": "faces per image",
    "face_size": "side of the middle face, px",
    "brightness": "brightness (0 to 255)",
    "blur": "sharpness (variance of Laplacian)",
}
"""Columns of the table that the figure shows, and their axis labels."""
_COMPONENTS, _FITTED = 20, 2000

Row = dict[str, Any]
"""A row of the table by column: text, whole numbers and floats."""


def describe(pool: Pool, looks: NDArray[np.float32], members: NDArray[np.int_]) -> Row:
    """Compute a subset's numbers for the table.

    Args:
        pool: all images.
        looks: (n, at least 3) `LOOKS` of all images.
        members: indices of the subset's images.

    Returns:
        Numbers of images by split and of usable faces, faces per image, the median side of a face in px (NaN without
        one), and the means of `LOOKS`.
    """
    boxes = [face["bbox"] for index in members for face in pool.faces[index] if coco.is_usable(face)]
    sides = [np.sqrt(width * height) for _, _, width, height in boxes]
    row: Row = {split: int(np.sum(pool.splits[members] == split)) for split in SPLITS}
    row |= {"faces": len(boxes), "faces_per_image": len(boxes) / len(members)}
    row["face_size"] = float(np.median(sides)) if sides else float("nan")
    return row | dict(zip(LOOKS, map(float, looks[members, : len(LOOKS)].mean(axis=0)), strict=True))


def condensed(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the first principal components (n, at most 20) of standardised features (n, d), each of variance 1."""
    step = max(1, len(features) // _FITTED)
    rows = np.asarray(features[::step])
    reduce = make_pipeline(StandardScaler(), PCA(min(_COMPONENTS, *rows.shape), whiten=True, random_state=0)).fit(rows)
    chunks = (features[start : start + _FITTED] for start in range(0, len(features), _FITTED))
    return np.concatenate([reduce.transform(chunk).astype(np.float32) for chunk in chunks])


def told_apart(features: NDArray[np.float32], members: NDArray[np.int_], splits: NDArray[np.str_]) -> float:
    """Measure how well a logistic regression tells a subset's images from all others.

    It is fitted on the training split and measured on the other splits.

    Args:
        features: (n, d), which the subset was not made from.
        members: indices of the subset's images.
        splits: (n,) split of each image.

    Returns:
        The area under the ROC curve; 0.5 is chance. NaN if there is nothing to fit or to measure.
    """
    member = np.zeros(len(splits), bool)
    member[members] = True
    train = splits == "train"
    if any(len(np.unique(member[part])) < 2 for part in (train, ~train)):
        return float("nan")
    classifier = LogisticRegression(max_iter=1000, class_weight="balanced").fit(features[train], member[train])
    return float(roc_auc_score(member[~train], classifier.decision_function(features[~train])))


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Write the rows, at least one, as CSV; floats with four digits."""
    with atomic(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(
            {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()} for row in rows
        )


def draw_spread(rows: Sequence[Row], whole: Row, path: Path) -> None:
    """Draw a panel for each of `MEASURES`: the values of all subsets, sorted, and that of all images (dashed).

    Args:
        rows: the subsets.
        whole: what `describe` says of all images.
        path: the PNG file.
    """
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
    with atomic(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
